#include "bindings.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "chammi/codecs.hpp"
#include "chammi/kernels.hpp"
#include "chammi/unpack.hpp"

namespace chammi::bindings {
namespace {

const char* name_of(Code code) noexcept {
    switch (code) {
        case Code::ok:
            return "ok";
        case Code::missing:
            return "missing";
        case Code::unreadable:
            return "unreadable";
        case Code::truncated:
            return "truncated";
        case Code::corrupt:
            return "corrupt";
        case Code::unsupported:
            return "unsupported";
        case Code::limit:
            return "limit";
        case Code::shape:
            return "shape";
        case Code::outside:
            return "outside";
        case Code::edge:
            return "edge";
    }
    return "corrupt";
}

std::string describe(const Status& status) {
    std::string text;
    std::size_t detail = 0;
    for (std::string_view rest{status.cause}; !rest.empty();) {
        const std::size_t gap = rest.find("{}");
        text += rest.substr(0, gap);
        if (gap == std::string_view::npos) {
            break;
        }
        text += std::to_string(status.details.at(detail++));
        rest.remove_prefix(gap + 2);
    }
    return text;
}

py::dict versions_of_codecs() {
    py::dict versions;
    for (const CodecLibrary& codec : codecs()) {
        versions[py::str(codec.name)] = codec.version;
    }
    return versions;
}

std::string_view use_instruction_set(const std::string& name) {
    switch (use_isa(name.c_str())) {
        case IsaChoice::chosen:
            return "chosen";
        case IsaChoice::absent:
            return "absent";
        case IsaChoice::unknown:
            break;
    }
    return "unknown";
}

std::string_view use_inflate_library(std::string_view name) {
    if (name != "isal" && name != "libdeflate") {
        return "unknown";
    }
    return use_inflate(name == "isal" ? InflateLibrary::isal : InflateLibrary::libdeflate) ? "chosen" : "absent";
}

}  // namespace

py::tuple to_python(const Status& status) {
    const bool placed = status.byte_offset != Status::nowhere;
    return py::make_tuple(name_of(status.code), placed ? py::object(py::int_(status.byte_offset)) : py::none(),
                          describe(status));
}

py::array adopt(const std::shared_ptr<Buffer>& owner, const std::uint8_t* data, const py::dtype& dtype,
                const std::vector<py::ssize_t>& shape) {
    auto held = std::make_unique<std::shared_ptr<Buffer>>(owner);
    const py::capsule keep{held.get(), [](void* last) { delete static_cast<std::shared_ptr<Buffer>*>(last); }};
    // The capsule deletes it from here on.
    [[maybe_unused]] const auto* kept = held.release();
    return {dtype, shape, data, keep};
}

namespace {

constexpr std::array type_names{"uint8", "uint16", "uint32",  "uint64",  "int8",   "int16",
                                "int32", "int64",  "float16", "float32", "float64"};

}  // namespace

const char* name_of(SampleType type) noexcept {
    return type_names[static_cast<std::size_t>(type)];
}

SampleType type_of(const py::dtype& dtype) {
    const auto name = dtype.attr("name").cast<std::string>();
    const auto* const known = std::ranges::find_if(type_names, [&](const char* one) { return one == name; });
    if (known == type_names.end()) {
        throw py::value_error("samples of type " + name + " are not supported");
    }
    return static_cast<SampleType>(known - type_names.begin());
}

}  // namespace chammi::bindings

PYBIND11_MODULE(_core, module) {
    using namespace chammi;
    module.doc() = "Decoding and preprocessing; chammi_fast.images is its public face.";
    bindings::register_images(module);
    bindings::register_batch(module);
    bindings::register_fields(module);
    module.def("codecs", &bindings::versions_of_codecs);
    module.def("isa", [] { return kernels().name; });
    module.def("use_isa", &bindings::use_instruction_set, pybind11::arg("name"));
    module.def("inflate", [] { return inflate_in_use() == InflateLibrary::isal ? "isal" : "libdeflate"; });
    module.def("use_inflate", &bindings::use_inflate_library, pybind11::arg("name"));
}
