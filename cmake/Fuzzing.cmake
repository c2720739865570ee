# The libFuzzer harnesses of cpp/fuzz; they need Clang and its runtime libraries (preset "fuzz").
target_compile_options(chammi_sanitizers INTERFACE -fsanitize=fuzzer-no-link)
add_custom_target(fuzzers)
foreach(harness tiff png lzw)
  add_executable(fuzz_${harness} EXCLUDE_FROM_ALL cpp/fuzz/fuzz_${harness}.cpp)
  target_link_libraries(fuzz_${harness} PRIVATE chammi_core)
  target_link_options(fuzz_${harness} PRIVATE -fsanitize=fuzzer)
  add_dependencies(fuzzers fuzz_${harness})
endforeach()
