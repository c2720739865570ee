#include <optional>
#include <string>

#include "bindings.hpp"
#include "chammi/decode.hpp"
#include "chammi/file.hpp"

namespace chammi::bindings {
namespace {

// An encoded image: the path of its file, or its bytes.
struct Source {
    std::optional<std::string> path;
    ConstBytes bytes;
};

Source unpack_source(const py::bytes& source, bool is_path) {
    if (is_path) {
        return {std::string{source}, ConstBytes{}};
    }
    const auto view = static_cast<std::string_view>(source);
    return {std::nullopt, {static_cast<const std::uint8_t*>(static_cast<const void*>(view.data())), view.size()}};
}

Workspace& workspace() {
    static thread_local Workspace work;
    return work;
}

// The encoded bytes, read into the workspace where they are in a file.
Status open_source(const Source& source, Workspace& work, ConstBytes& bytes) noexcept {
    if (!source.path.has_value()) {
        bytes = source.bytes;
        return success();
    }
    const Status status = read_file(*source.path, work.file);
    bytes = work.file.bytes();
    return status;
}

const char* compression_name(Compression compression) noexcept {
    switch (compression) {
        case Compression::none:
            return "none";
        case Compression::lzw:
            return "lzw";
        case Compression::deflate:
            return "deflate";
        case Compression::packbits:
            return "packbits";
        case Compression::zstd:
            break;
    }
    return "zstd";
}

py::dict to_python(const ImageInfo& info) {
    using namespace pybind11::literals;
    return py::dict("format"_a = info.format == Format::png ? "png" : "tiff", "height"_a = info.height,
                    "width"_a = info.width, "samples"_a = info.samples, "pages"_a = info.pages,
                    "dtype"_a = info.type == SampleType::u8 ? "uint8" : "uint16",
                    "compression"_a = compression_name(info.compression), "predictor"_a = info.predictor,
                    "byte_order"_a = info.order == ByteOrder::little ? "little" : "big",
                    "photometric"_a = info.photometric, "rows_per_strip"_a = info.rows_per_strip,
                    "planar"_a = info.planar, "inverted"_a = info.inverted);
}

py::tuple probe_source(const py::bytes& source, bool is_path, std::uint32_t page, std::uint64_t pixel_limit) {
    const Source unpacked = unpack_source(source, is_path);
    ImageInfo info;
    Status status;
    {
        const py::gil_scoped_release unlocked;
        ConstBytes bytes;
        status = open_source(unpacked, workspace(), bytes);
        if (status.ok()) {
            status = probe(bytes, page, Limits{pixel_limit}, info);
        }
        workspace().trim();
    }
    return py::make_tuple(bindings::to_python(status), status.ok() ? py::object(to_python(info)) : py::none());
}

py::tuple decode_source(const py::bytes& source, bool is_path, std::uint32_t page, std::uint64_t pixel_limit) {
    const Source unpacked = unpack_source(source, is_path);
    auto pixels = std::make_shared<Buffer>();
    ImageInfo info;
    Status status;
    {
        const py::gil_scoped_release unlocked;
        ConstBytes bytes;
        status = open_source(unpacked, workspace(), bytes);
        if (status.ok()) {
            status = decode(bytes, page, Limits{pixel_limit}, workspace(), info, *pixels);
        }
        workspace().trim();
    }
    if (!status.ok()) {
        return py::make_tuple(bindings::to_python(status), py::none());
    }
    std::vector<py::ssize_t> shape{info.height, info.width};
    if (info.samples > 1) {
        shape.push_back(info.samples);
    }
    return py::make_tuple(bindings::to_python(status), adopt(pixels, dtype_of(info.type), shape));
}

py::tuple decode_source_planes(const py::bytes& source, bool is_path, std::uint32_t channel_width,
                               std::uint64_t pixel_limit) {
    const Source unpacked = unpack_source(source, is_path);
    auto pixels = std::make_shared<Buffer>();
    Planes planes;
    Status status;
    {
        const py::gil_scoped_release unlocked;
        ConstBytes bytes;
        status = open_source(unpacked, workspace(), bytes);
        if (status.ok()) {
            status = decode_planes(bytes, channel_width, Limits{pixel_limit}, workspace(), planes);
        }
        if (status.ok()) {
            const std::uint64_t values = std::uint64_t{planes.channels} * planes.height * planes.width;
            status = pixels->resize(values * sample_bytes(planes.type)) ? success() : out_of_memory();
        }
        if (status.ok()) {
            gather_planes(planes, pixels->data());
        }
        workspace().trim();
    }
    if (!status.ok()) {
        return py::make_tuple(bindings::to_python(status), py::none());
    }
    const std::vector<py::ssize_t> shape{planes.channels, planes.height, planes.width};
    return py::make_tuple(bindings::to_python(status), adopt(pixels, dtype_of(planes.type), shape));
}

template <typename T>
py::array refold_tape(const py::array& tape, std::uint32_t channel_width) {
    const auto height = static_cast<std::uint32_t>(tape.shape(0));
    const auto channels = static_cast<std::uint32_t>(tape.shape(1)) / channel_width;
    py::array_t<T> out{std::vector<py::ssize_t>{channels, height, channel_width}};
    const auto type = sizeof(T) == 1 ? SampleType::u8 : SampleType::u16;
    const Planes planes{static_cast<const std::uint8_t*>(tape.data()), type, channels, height, channel_width,
                        channel_width, static_cast<std::uint64_t>(tape.shape(1))};
    auto* to = static_cast<std::uint8_t*>(static_cast<void*>(out.mutable_data()));
    const py::gil_scoped_release unlocked;
    gather_planes(planes, to);
    return out;
}

}  // namespace

void register_images(py::module_& module) {
    module.def("probe", &probe_source, py::arg("source"), py::arg("is_path"), py::arg("page"), py::arg("pixel_limit"));
    module.def("decode", &decode_source, py::arg("source"), py::arg("is_path"), py::arg("page"),
               py::arg("pixel_limit"));
    module.def("decode_planes", &decode_source_planes, py::arg("source"), py::arg("is_path"),
               py::arg("channel_width"), py::arg("pixel_limit"));
    module.def("refold_u8", &refold_tape<std::uint8_t>, py::arg("tape"), py::arg("channel_width"));
    module.def("refold_u16", &refold_tape<std::uint16_t>, py::arg("tape"), py::arg("channel_width"));
}

}  // namespace chammi::bindings
