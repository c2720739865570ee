#include <bit>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "bindings.hpp"
#include "chammi/decode.hpp"
#include "chammi/file.hpp"

namespace chammi::bindings {
namespace {

Workspace& workspace() {
    static thread_local Workspace work;
    return work;
}

// Runs `step(bytes, workspace)` over the encoded bytes, read from their file where they are in one.
template <typename Step>
Status run_unlocked(const ImageSource& source, const Limits& limits, Step step) {
    const py::gil_scoped_release unlocked;
    Workspace& work = workspace();
    ConstBytes bytes;
    Status status = read_source(source, limits, work.file, bytes);
    if (status.ok()) {
        status = step(bytes, work);
    }
    work.trim();
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
    return py::dict(
        "format"_a = info.format == Format::png ? "png" : "tiff", "height"_a = info.height, "width"_a = info.width,
        "samples"_a = info.samples, "pages"_a = info.pages, "dtype"_a = name_of(info.type), "bits"_a = info.bits,
        "compression"_a = compression_name(info.compression), "predictor"_a = info.predictor,
        "byte_order"_a = info.order == ByteOrder::little ? "little" : "big", "photometric"_a = info.photometric,
        "rows_per_strip"_a = info.rows_per_strip,
        "tile"_a = info.tile_width == 0 ? py::object(py::none()) : py::make_tuple(info.tile_height, info.tile_width),
        "planar"_a = info.planar, "inverted"_a = info.inverted, "interlaced"_a = info.interlaced,
        "expanded"_a = info.expanded);
}

// (status, value or None)
template <typename Make>
py::tuple answer(const Status& status, Make make) {
    return py::make_tuple(bindings::to_python(status), status.ok() ? py::object(make()) : py::none());
}

py::tuple probe_source(const py::object& source, std::uint32_t page, std::uint64_t pixel_limit) {
    ImageInfo info;
    const Limits limits{pixel_limit};
    const auto step = [&](ConstBytes bytes, Workspace& /*work*/) { return probe(bytes, page, limits, info); };
    const Status status = run_unlocked(source_from(source), limits, step);
    return answer(status, [&] { return to_python(info); });
}

// Gives `owner` the pixels that stand in the encoded image as they are: with the file's memory, where little else is in
// it, or by copying them.
Status take(ConstBytes& pixels, ConstBytes encoded, Buffer& file, Buffer& owner) noexcept {
    if (encoded.data() == file.data() && pixels.size() >= file.capacity() / 2) {
        owner = std::move(file);
        return success();
    }
    if (!owner.resize(pixels.size())) {
        return out_of_memory();
    }
    std::memcpy(owner.data(), pixels.data(), pixels.size());
    pixels = std::as_const(owner).bytes();
    return success();
}

py::tuple decode_source(const py::object& source, std::uint32_t page, std::uint64_t pixel_limit) {
    const auto owner = std::make_shared<Buffer>();
    ConstBytes pixels;
    ImageInfo info;
    const Limits limits{pixel_limit};
    const auto step = [&](ConstBytes bytes, Workspace& work) {
        const Status status = decode_or_view(bytes, page, limits, work, info, *owner, pixels);
        return status.ok() && pixels.data() != owner->data() ? take(pixels, bytes, work.file, *owner) : status;
    };
    const Status status = run_unlocked(source_from(source), limits, step);
    return answer(status, [&] {
        std::vector<py::ssize_t> shape{info.height, info.width};
        if (info.samples > 1) {
            shape.push_back(info.samples);
        }
        return adopt(owner, pixels.data(), py::dtype(name_of(info.type)), shape);
    });
}

Status copy_planes(const Planes& planes, Buffer& out) noexcept {
    const std::uint64_t values = std::uint64_t{planes.channels} * planes.height * planes.width;
    if (!out.resize(values * sample_bytes(planes.type))) {
        return out_of_memory();
    }
    gather_planes(planes, out.data());
    return success();
}

py::tuple decode_source_planes(const py::object& source, std::uint32_t channel_width, std::uint64_t pixel_limit) {
    const auto pixels = std::make_shared<Buffer>();
    Planes planes;
    const Limits limits{pixel_limit};
    const auto step = [&](ConstBytes bytes, Workspace& work) {
        const Status decoded = decode_planes(bytes, channel_width, limits, work, planes);
        return decoded.ok() ? copy_planes(planes, *pixels) : decoded;
    };
    const Status status = run_unlocked(source_from(source), limits, step);
    return answer(status, [&] {
        return adopt(pixels, pixels->data(), py::dtype(name_of(planes.type)),
                     {planes.channels, planes.height, planes.width});
    });
}

// An unsigned type stands for all of its size: samples are only moved.
SampleType type_of_size(py::ssize_t bytes) noexcept {
    switch (bytes) {
        case 1:
            return SampleType::u8;
        case 2:
            return SampleType::u16;
        case 4:
            return SampleType::u32;
        default:
            return SampleType::u64;
    }
}

void check_tape(const py::array& tape, std::uint32_t channel_width) {
    if (tape.ndim() != 2 || !py::cast<bool>(tape.attr("flags").attr("c_contiguous"))) {
        throw py::value_error("a tape has two dimensions and is C-contiguous");
    }
    const auto bytes = static_cast<std::uint64_t>(tape.itemsize());
    if (std::string_view{"buif"}.find(tape.dtype().kind()) == std::string_view::npos || bytes > 8 ||
        !std::has_single_bit(bytes)) {
        throw py::value_error("a tape holds numbers of 1, 2, 4 or 8 bytes");
    }
    constexpr py::ssize_t most = std::numeric_limits<std::uint32_t>::max();
    if (tape.shape(0) > most || tape.shape(1) > most) {
        throw py::value_error("a tape has fewer than 2**32 pixels a side");
    }
    if (channel_width == 0 || tape.shape(1) % channel_width != 0) {
        throw py::value_error("a tape's width is a multiple of its channel width");
    }
}

py::array refold_tape(const py::array& tape, std::uint32_t channel_width) {
    check_tape(tape, channel_width);
    const auto height = static_cast<std::uint32_t>(tape.shape(0));
    const auto width = static_cast<std::uint32_t>(tape.shape(1));
    const std::uint32_t channels = width / channel_width;
    py::array out{tape.dtype(), std::vector<py::ssize_t>{channels, height, channel_width}};
    const Planes planes{.data = static_cast<const std::uint8_t*>(tape.data()),
                        .type = type_of_size(tape.itemsize()),
                        .channels = channels,
                        .height = height,
                        .width = channel_width,
                        .channel_stride = channel_width,
                        .row_stride = width};
    auto* to = static_cast<std::uint8_t*>(out.mutable_data());
    const py::gil_scoped_release unlocked;
    gather_planes(planes, to);
    return out;
}

}  // namespace

ImageSource source_from(py::handle source) {
    const auto view_of = [](py::handle bytes) {
        return ConstBytes{reinterpret_cast<const std::uint8_t*>(PyBytes_AS_STRING(bytes.ptr())),
                          static_cast<std::size_t>(PyBytes_GET_SIZE(bytes.ptr()))};
    };
    if (py::isinstance<py::bytes>(source)) {
        return {std::nullopt, view_of(source)};
    }
    auto path = py::reinterpret_steal<py::object>(PyOS_FSPath(source.ptr()));
    if (path && py::isinstance<py::str>(path)) {
        path = py::reinterpret_steal<py::object>(PyUnicode_EncodeFSDefault(path.ptr()));
    }
    if (!path) {
        throw py::error_already_set();
    }
    const ConstBytes name = view_of(path);
    return {std::string{name.begin(), name.end()}, ConstBytes{}};
}

void register_images(py::module_& module) {
    module.def("probe", &probe_source, py::arg("source"), py::arg("page"), py::arg("pixel_limit"));
    module.def("decode", &decode_source, py::arg("source"), py::arg("page"), py::arg("pixel_limit"));
    module.def("decode_planes", &decode_source_planes, py::arg("source"), py::arg("channel_width"),
               py::arg("pixel_limit"));
    module.def("refold", &refold_tape, py::arg("tape"), py::arg("channel_width"));
}

}  // namespace chammi::bindings
