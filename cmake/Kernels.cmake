# The kernels of each instruction set, in one file each with its own flags; cpp/src/isa.cpp chooses at run time.
function(chammi_add_kernels target)
  set(sources cpp/src/kernels/scalar.cpp)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    list(APPEND sources cpp/src/kernels/avx2.cpp cpp/src/kernels/avx512.cpp)
    set_source_files_properties(cpp/src/kernels/avx2.cpp PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma")
    set_source_files_properties(cpp/src/kernels/avx512.cpp PROPERTIES COMPILE_OPTIONS
      "-mavx2;-mfma;-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mprefer-vector-width=512")
    target_compile_definitions(${target} PRIVATE CHAMMI_X86_64)
  endif()
  target_sources(${target} PRIVATE ${sources})
  set_property(SOURCE ${sources} APPEND PROPERTY COMPILE_OPTIONS "-O3")
endfunction()
