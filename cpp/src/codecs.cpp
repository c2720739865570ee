#include "chammi/codecs.hpp"

#include <zstd.h>

#ifdef CHAMMI_HAS_ISAL
#include <isa-l.h>
#endif
#ifdef CHAMMI_HAS_LIBDEFLATE
#include <libdeflate.h>
#endif

namespace chammi {

std::vector<CodecLibrary> codecs() {
    std::vector<CodecLibrary> all;
#ifdef CHAMMI_HAS_ISAL
    all.push_back({"ISA-L", std::to_string(ISAL_MAJOR_VERSION) + "." + std::to_string(ISAL_MINOR_VERSION) + "." +
                                std::to_string(ISAL_PATCH_VERSION)});
#endif
#ifdef CHAMMI_HAS_LIBDEFLATE
    all.push_back({"libdeflate", LIBDEFLATE_VERSION_STRING});
#endif
    all.push_back({"zstd", ZSTD_versionString()});
    return all;
}

}  // namespace chammi
