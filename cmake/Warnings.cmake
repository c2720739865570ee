# chammi_warnings: what our own code must compile without.
add_library(chammi_warnings INTERFACE)
if(CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang")
  target_compile_options(chammi_warnings INTERFACE
    -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wold-style-cast -Wcast-qual -Wcast-align
    -Wnon-virtual-dtor -Woverloaded-virtual -Wundef -Wformat=2 -Wnull-dereference -Wimplicit-fallthrough)
  if(CHAMMI_FAST_WERROR)
    target_compile_options(chammi_warnings INTERFACE -Werror)
  endif()
endif()
