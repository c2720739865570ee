# chammi_sanitizers: instrumentation asked for by CHAMMI_FAST_SANITIZE ("address,undefined", "thread").
add_library(chammi_sanitizers INTERFACE)
if(CHAMMI_FAST_SANITIZE)
  target_compile_options(chammi_sanitizers INTERFACE
    -fsanitize=${CHAMMI_FAST_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(chammi_sanitizers INTERFACE -fsanitize=${CHAMMI_FAST_SANITIZE})
endif()
