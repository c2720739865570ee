# chammi_compression: libzstd, and at least one of ISA-L and libdeflate for zlib streams.
add_library(chammi_compression INTERFACE)
if(CHAMMI_FAST_BUNDLE)  # archives where there are any; auditwheel takes the others into the wheel
  list(PREPEND CMAKE_FIND_LIBRARY_SUFFIXES .a)
endif()

find_path(ZSTD_INCLUDE_DIR zstd.h)
find_library(ZSTD_LIBRARY zstd)
if(NOT ZSTD_INCLUDE_DIR OR NOT ZSTD_LIBRARY)
  message(FATAL_ERROR "chammi-fast needs libzstd: install it with `apt install libzstd-dev` (Debian, Ubuntu), "
    "`dnf install libzstd-devel` (Fedora) or `conda install zstd`.")
endif()
target_include_directories(chammi_compression SYSTEM INTERFACE "${ZSTD_INCLUDE_DIR}")
target_link_libraries(chammi_compression INTERFACE "${ZSTD_LIBRARY}")

find_path(ISAL_INCLUDE_DIR isa-l/igzip_lib.h)
find_library(ISAL_LIBRARY isal)
if(CHAMMI_FAST_ISAL AND ISAL_INCLUDE_DIR AND ISAL_LIBRARY)
  set(chammi_inflate ISA-L)
  target_compile_definitions(chammi_compression INTERFACE CHAMMI_HAS_ISAL)
  target_include_directories(chammi_compression SYSTEM INTERFACE "${ISAL_INCLUDE_DIR}")
  target_link_libraries(chammi_compression INTERFACE "${ISAL_LIBRARY}")
endif()

find_path(LIBDEFLATE_INCLUDE_DIR libdeflate.h)
find_library(LIBDEFLATE_LIBRARY deflate)
if(CHAMMI_FAST_LIBDEFLATE AND LIBDEFLATE_INCLUDE_DIR AND LIBDEFLATE_LIBRARY)
  list(APPEND chammi_inflate libdeflate)
  target_compile_definitions(chammi_compression INTERFACE CHAMMI_HAS_LIBDEFLATE)
  target_include_directories(chammi_compression SYSTEM INTERFACE "${LIBDEFLATE_INCLUDE_DIR}")
  target_link_libraries(chammi_compression INTERFACE "${LIBDEFLATE_LIBRARY}")
endif()

if(NOT chammi_inflate)
  message(FATAL_ERROR "chammi-fast needs ISA-L or libdeflate to read PNG and Deflate TIFF: install one with "
    "`apt install libisal-dev` or `apt install libdeflate-dev` (Debian, Ubuntu), "
    "`dnf install isa-l-devel` (Fedora) or `conda install libdeflate`.")
endif()
message(STATUS "zlib streams are read by: ${chammi_inflate}")
