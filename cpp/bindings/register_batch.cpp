#include <pybind11/stl.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>

#include "bindings.hpp"
#include "chammi/batch.hpp"
#include "held_stream.hpp"

namespace chammi::bindings {
namespace {

Mask mask_from(const std::string& name) {
    if (name == "apply") {
        return Mask::apply;
    }
    return name == "drop" ? Mask::drop : Mask::keep;
}

class Stream {
 public:
    /// `sources` holds the bytes that the plan views.
    Stream(BatchPlan plan, py::tuple sources)
        : sources_(std::move(sources)), stream_(std::make_unique<BatchStream>(std::move(plan)), "batches") {}

    /// (images, statuses) or None at the end.
    py::object next() {
        LoadedBatch batch;
        return stream_.next(batch) ? to_python(batch) : py::none();
    }

    void close() { stream_.close(); }

 private:
    static py::object to_python(const LoadedBatch& batch) {
        if (batch.images == nullptr) {
            throw std::bad_alloc();
        }
        py::list statuses;
        for (const Status& status : batch.statuses) {
            statuses.append(status.ok() ? py::object(py::none()) : bindings::to_python(status));
        }
        const std::vector<py::ssize_t> shape{static_cast<py::ssize_t>(batch.statuses.size()), batch.frame.channels,
                                             batch.frame.height, batch.frame.width};
        return py::make_tuple(adopt(batch.images, batch.images->data(), py::dtype::of<float>(), shape), statuses);
    }

    py::tuple sources_;  // let go of after the stream
    HeldStream<BatchStream> stream_;
};

using Windows = std::optional<py::array_t<std::int64_t, py::array::c_style>>;
using Flips = std::optional<py::array_t<bool, py::array::c_style>>;

Window window_at(const std::int64_t* values) noexcept {
    return {values[0], values[1], values[2], values[3]};
}

void place_images(BatchPlan& plan, const Windows& windows, const Flips& flips) {
    const auto count = static_cast<py::ssize_t>(plan.sources.size());
    if (windows.has_value()) {
        if (windows->ndim() != 2 || windows->shape(0) != count || windows->shape(1) != 4 || plan.how.size == 0) {
            throw py::value_error("windows are four numbers for each image, and come with a size");
        }
        plan.how.resize = Resize::both;
        plan.windows.reserve(plan.sources.size());
        for (py::ssize_t i = 0; i < count; ++i) {
            plan.windows.push_back(window_at(windows->data(i, 0)));
        }
    }
    if (flips.has_value()) {
        if (flips->ndim() != 1 || flips->shape(0) != count) {
            throw py::value_error("flips are one truth value for each image");
        }
        plan.mirrored.assign(flips->data(), flips->data() + count);
    }
}

// The keys are those of _core.pyi's StreamOptions; chammi_fast.images has validated the values.
BatchPlan plan_from(std::vector<ImageSource> sources, std::vector<std::uint32_t> channel_widths,
                    const py::dict& options) {
    if (channel_widths.size() != 1 && channel_widths.size() != sources.size()) {
        throw py::value_error("channel widths are one for all images, or one for each");
    }
    BatchPlan plan;
    plan.sources = std::move(sources);
    plan.channel_widths = std::move(channel_widths);
    plan.how.size = options["size"].cast<std::uint32_t>();
    plan.how.resize = options["resize"].cast<bool>() ? Resize::shorter : Resize::none;
    if (!options["value_range"].is_none()) {
        std::tie(plan.how.low, plan.how.high) = options["value_range"].cast<std::pair<double, double>>();
        plan.how.ranged = true;
    }
    plan.how.mask = mask_from(options["mask"].cast<std::string>());
    plan.mean = options["mean"].cast<std::vector<float>>();
    plan.deviation = options["std"].cast<std::vector<float>>();
    plan.channels = options["channels"].cast<std::uint32_t>();
    for (const std::vector<float>* values : {&plan.mean, &plan.deviation}) {
        if (!values->empty() && values->size() != plan.channels) {
            throw py::value_error("mean and std are given for each channel, or not at all");
        }
    }
    plan.batch_size = options["batch_size"].cast<std::uint64_t>();
    plan.threads = options["threads"].cast<std::uint32_t>();
    plan.look_ahead = options["look_ahead"].cast<std::uint32_t>();
    plan.limits.pixels = options["pixel_limit"].cast<std::uint64_t>();
    return plan;
}

// One image of a batch whose planes were decoded elsewhere. Checks what preprocess_finite() takes for granted.
Status preprocess_image(Planes planes, const BatchPlan& plan, std::uint64_t images, Frame& frame,
                        Buffer& out) noexcept {
    Preprocess how = plan.how;
    how.mean = plan.mean;
    how.deviation = plan.deviation;
    if (!plan.windows.empty()) {
        if (const Status status = cut(planes, plan.windows.front()); !status.ok()) {
            return status;
        }
    }
    frame = frame_of(planes, how);
    if (frame.channels == 0) {
        return failure(Code::shape, "the mask is the only channel of the image");
    }
    const std::uint64_t expected = plan.mean.empty() ? plan.channels : plan.mean.size();
    if ((expected != 0 && frame.channels != expected) || plan.deviation.size() != plan.mean.size()) {
        return failure(Code::shape, "the image has {} channels where {} are expected")
            .with(frame.channels, static_cast<std::int64_t>(expected));
    }
    if (plan.channels == 0 || how.size == 0) {
        if (const Status status = check_batch(frame, images, plan.limits); !status.ok()) {
            return status;
        }
    }
    if (!out.resize(frame.pixels() * frame.channels * sizeof(float))) {
        return out_of_memory();
    }
    Workspace work;
    return preprocess_finite(planes, how, frame, work, out.as<float>());
}

void check_planes(const py::array& array) {
    constexpr py::ssize_t most = std::numeric_limits<std::int32_t>::max();
    const bool whole = array.ndim() == 3 && std::all_of(array.shape(), array.shape() + 3,
                                                        [](py::ssize_t side) { return side >= 1 && side <= most; });
    if (!whole) {
        throw py::value_error("planes have three dimensions, each of 1 to 2**31 - 1");
    }
    const py::object flags = array.attr("flags");
    if (!py::cast<bool>(flags.attr("c_contiguous")) || !py::cast<bool>(flags.attr("aligned")) ||
        !py::cast<bool>(array.dtype().attr("isnative"))) {
        throw py::value_error("planes are C-contiguous, aligned and in the machine's byte order");
    }
}

py::tuple preprocess_planes(const py::array& array, const py::dict& options, const Windows& window, bool flip,
                            std::uint64_t images) {
    check_planes(array);
    BatchPlan plan = plan_from({ImageSource{}}, {0}, options);
    plan.how.mirror = flip;
    place_images(plan, window, std::nullopt);
    const auto channels = static_cast<std::uint32_t>(array.shape(0));
    const auto height = static_cast<std::uint32_t>(array.shape(1));
    const auto width = static_cast<std::uint32_t>(array.shape(2));
    const Planes planes{static_cast<const std::uint8_t*>(array.data()),
                        type_of(array.dtype()),
                        channels,
                        height,
                        width,
                        std::uint64_t{height} * width,
                        width};
    const auto image = std::make_shared<Buffer>();
    Frame frame;
    const Status status = [&] {
        const py::gil_scoped_release unlocked;
        return preprocess_image(planes, plan, images, frame, *image);
    }();
    const std::vector<py::ssize_t> shape{frame.channels, frame.height, frame.width};
    return py::make_tuple(
        to_python(status),
        status.ok() ? py::object(adopt(image, image->data(), py::dtype::of<float>(), shape)) : py::none());
}

}  // namespace

void register_batch(py::module_& module) {  // NOLINT(misc-const-correctness)
    py::class_<Stream>(module, "Stream")
        .def(py::init([](const py::sequence& sources, std::vector<std::uint32_t> channel_widths,
                         const py::dict& options, const Windows& windows, const Flips& flips) {
                 py::tuple kept{sources};
                 std::vector<ImageSource> images;
                 images.reserve(kept.size());
                 for (const py::handle source : kept) {
                     images.push_back(source_from(source));
                 }
                 BatchPlan plan = plan_from(std::move(images), std::move(channel_widths), options);
                 place_images(plan, windows, flips);
                 return std::make_unique<Stream>(std::move(plan), std::move(kept));
             }),
             py::arg("sources"), py::arg("channel_widths"), py::arg("options"),
             py::arg("windows").noconvert() = py::none(), py::arg("flips").noconvert() = py::none())
        .def("next", &Stream::next)
        .def("close", &Stream::close);
    module.def("preprocess", &preprocess_planes, py::arg("planes"), py::arg("options"),
               py::arg("window").noconvert() = py::none(), py::arg("flip") = false, py::arg("images") = 1);
}

}  // namespace chammi::bindings
