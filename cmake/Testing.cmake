# ctest runs the Python tests of the core against this build's extension module, under its sanitizers.
enable_testing()

set(chammi_tests tests/test_batch.py tests/test_batch_bytes.py tests/test_batch_callers.py tests/test_batch_finite.py
  tests/test_batch_windows.py tests/test_crashers.py tests/test_fields.py tests/test_fields_failing.py tests/test_fields_stream.py
  tests/test_images_corpus.py tests/test_images_hostile.py tests/test_images_layouts.py tests/test_images_plain.py
  tests/test_images_planes.py tests/test_images_png.py tests/test_images_random.py tests/test_images_refused.py
  tests/test_images_variants.py tests/test_preprocess.py)
set(chammi_environment PYTHONDONTWRITEBYTECODE=1)
if(CHAMMI_FAST_SANITIZE MATCHES "thread")
  set(chammi_tests tests/test_batch.py tests/test_batch_callers.py tests/test_batch_bytes.py tests/test_fields_stream.py)
  set(chammi_runtime libtsan.so)
  list(APPEND chammi_environment
    "TSAN_OPTIONS=halt_on_error=1:exitcode=66:allocator_may_return_null=1:suppressions=${CMAKE_CURRENT_SOURCE_DIR}/cmake/tsan-suppressions.txt")
elseif(CHAMMI_FAST_SANITIZE)
  set(chammi_runtime libasan.so)
  # The interpreter keeps memory until the end of the process on purpose; allocations may fail.
  list(APPEND chammi_environment "ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1"
    "UBSAN_OPTIONS=print_stacktrace=1")
endif()
if(chammi_runtime)
  # The interpreter itself is not instrumented, so that the runtime must be there before it.
  execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-file-name=${chammi_runtime}
    OUTPUT_VARIABLE chammi_preload OUTPUT_STRIP_TRAILING_WHITESPACE)
  execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-file-name=libstdc++.so
    OUTPUT_VARIABLE chammi_stdcxx OUTPUT_STRIP_TRAILING_WHITESPACE)
  list(APPEND chammi_environment "LD_PRELOAD=${chammi_preload} ${chammi_stdcxx}")
endif()
add_test(NAME core
  COMMAND ${Python_EXECUTABLE} cmake/pytest_with_build.py $<TARGET_FILE:_core> -q -p no:cacheprovider ${chammi_tests}
  WORKING_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}")
set_tests_properties(core PROPERTIES ENVIRONMENT "${chammi_environment}")
