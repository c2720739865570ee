#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <deque>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>

#include "bindings.hpp"
#include "chammi/crop_stream.hpp"
#include "held_stream.hpp"

namespace chammi::bindings {
namespace {

using Functions = std::optional<std::vector<std::optional<py::array_t<float, py::array::c_style>>>>;
using LabelArray = std::optional<py::array_t<std::int32_t, py::array::c_style>>;
using Centres = py::array_t<double, py::array::c_style>;
using Objects = std::optional<py::array_t<std::int32_t, py::array::c_style>>;

std::uint32_t side_of(py::ssize_t side) {
    if (side < 1 || side > std::numeric_limits<std::int32_t>::max()) {
        throw py::value_error("each side of an array is of 1 to 2**31 - 1 pixels");
    }
    return static_cast<std::uint32_t>(side);
}

// (C, H, W) in memory.
Planes planes_from(const py::array& array) {
    const py::object flags = array.attr("flags");
    if (array.ndim() != 3 || !py::cast<bool>(flags.attr("c_contiguous")) || !py::cast<bool>(flags.attr("aligned")) ||
        !py::cast<bool>(array.dtype().attr("isnative"))) {
        throw py::value_error("planes have three dimensions, C-contiguous, aligned and in the machine's byte order");
    }
    const std::uint32_t height = side_of(array.shape(1));
    const std::uint32_t width = side_of(array.shape(2));
    return {static_cast<const std::uint8_t*>(array.data()),
            type_of(array.dtype()),
            side_of(array.shape(0)),
            height,
            width,
            std::uint64_t{height} * width,
            width};
}

FieldSource field_source_from(py::handle source) {
    if (py::isinstance<py::array>(source)) {
        return {{}, planes_from(py::reinterpret_borrow<py::array>(source))};
    }
    return {source_from(source), std::nullopt};
}

std::vector<Illumination> illumination_from(const Functions& functions) {
    std::vector<Illumination> all;
    for (const auto& function : functions.value_or(Functions::value_type{})) {
        Illumination one;
        if (function.has_value()) {
            if (function->ndim() != 2) {
                throw py::value_error("an illumination function has two dimensions");
            }
            one = {function->data(), side_of(function->shape(0)), side_of(function->shape(1))};
        }
        all.push_back(one);
    }
    return all;
}

void add_cells(FieldPlan& plan, const Centres& centres, const Objects& objects) {
    if (centres.ndim() != 2 || centres.shape(1) != 2) {
        throw py::value_error("centres are two numbers for each cell");
    }
    for (py::ssize_t i = 0; i < centres.shape(0); ++i) {
        plan.centres.push_back({*centres.data(i, 0), *centres.data(i, 1)});
    }
    if (objects.has_value()) {
        if (objects->ndim() != 1 || objects->shape(0) != centres.shape(0)) {
            throw py::value_error("objects are one label for each cell");
        }
        plan.objects.assign(objects->data(), objects->data() + objects->shape(0));
    }
}

Edge edge_from(const std::string& name) {
    if (name == "constant") {
        return Edge::constant;
    }
    return name == "skip" ? Edge::skip : Edge::reflect;
}

CropScale scale_from(const std::string& name) {
    if (name == "none") {
        return CropScale::none;
    }
    if (name == "range") {
        return CropScale::range;
    }
    return name == "crop" ? CropScale::crop : CropScale::field;
}

// The keys are those of _core.pyi's CropOptions; chammi_fast.images has validated the values.
CropPlan plan_from(const py::dict& options) {
    CropPlan plan;
    plan.crops.size = options["crop_size"].cast<std::uint32_t>();
    plan.crops.edge = edge_from(options["edge"].cast<std::string>());
    plan.crops.scaling.scale = scale_from(options["scale"].cast<std::string>());
    const auto percentiles = options["percentiles"].cast<std::pair<double, double>>();
    plan.crops.scaling.percentiles = {percentiles.first, percentiles.second};
    if (!options["range"].is_none()) {
        const auto range = options["range"].cast<std::pair<double, double>>();
        plan.crops.scaling.range = Bounds{range.first, range.second};
    }
    plan.crops.hide_neighbours = options["hide_neighbours"].cast<bool>();
    plan.how.size = options["size"].cast<std::uint32_t>();
    plan.how.resize = options["resize"].cast<bool>() ? Resize::shorter : Resize::none;
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
    plan.decoded = options["decoded"].cast<bool>();
    plan.limits.pixels = options["pixel_limit"].cast<std::uint64_t>();
    constexpr std::uint32_t most = 16384;
    if (plan.crops.size < 1 || plan.crops.size > most) {
        throw py::value_error("crops are of 1 to 16384 pixels");
    }
    return plan;
}

class Crops {
 public:
    explicit Crops(const py::dict& options)
        : hides_neighbours_(options["hide_neighbours"].cast<bool>()),
          stream_(std::make_unique<CropStream>(plan_from(options)), "crops") {}

    void push(const py::sequence& sources, const Functions& illumination, const LabelArray& labels,
              const Centres& centres, const Objects& objects) {
        CropStream& stream = stream_.get();
        const py::tuple kept{sources};
        FieldPlan plan;
        for (const py::handle source : kept) {
            plan.sources.push_back(field_source_from(source));
        }
        if (plan.sources.empty()) {
            throw py::value_error("a field has at least one source");
        }
        plan.illumination = illumination_from(illumination);
        if (labels.has_value()) {
            if (labels->ndim() != 2) {
                throw py::value_error("labels have two dimensions");
            }
            plan.labels = {labels->data(), side_of(labels->shape(0)), side_of(labels->shape(1))};
        } else if (hides_neighbours_) {
            throw py::value_error("neighbours are hidden by labels");
        }
        add_cells(plan, centres, objects);
        held_.push_back(py::make_tuple(kept, illumination, labels));
        stream.push(std::move(plan));
    }

    /// A dictionary, or None where all fields that were pushed were handed out.
    py::object next() {
        LoadedCrops batch;
        if (!stream_.next(batch)) {
            return py::none();
        }
        if (batch.last) {
            held_.pop_front();
        }
        return to_python(batch);
    }

    void close() { stream_.close(); }

 private:
    static py::dict to_python(const LoadedCrops& batch) {
        using namespace pybind11::literals;
        if (batch.images == nullptr) {
            throw std::bad_alloc();
        }
        py::list statuses;
        for (const Status& status : batch.statuses) {
            statuses.append(status.ok() ? py::object(py::none()) : bindings::to_python(status));
        }
        const auto cells = static_cast<py::ssize_t>(batch.statuses.size());
        const std::vector<py::ssize_t> shape{cells, batch.frame.channels, batch.frame.height, batch.frame.width};
        py::array_t<bool> touches{cells};
        std::ranges::transform(batch.touches_edge, touches.mutable_data(), [](std::uint8_t one) { return one != 0; });
        py::array_t<double> bounds{std::vector<py::ssize_t>{static_cast<py::ssize_t>(batch.bounds.size()), 2}};
        auto rows = bounds.mutable_unchecked<2>();
        for (py::ssize_t i = 0; i < rows.shape(0); ++i) {
            rows(i, 0) = batch.bounds[static_cast<std::size_t>(i)].low;
            rows(i, 1) = batch.bounds[static_cast<std::size_t>(i)].high;
        }
        return py::dict("images"_a = adopt(batch.images, batch.images->data(), py::dtype(name_of(batch.type)), shape),
                        "touches_edge"_a = touches, "cells"_a = statuses,
                        "field"_a = batch.field.ok() ? py::object(py::none()) : bindings::to_python(batch.field),
                        "culprit"_a = batch.culprit, "first"_a = batch.first, "last"_a = batch.last,
                        "bounds"_a = bounds);
    }

    bool hides_neighbours_;
    std::deque<py::tuple> held_;  // what the fields in the stream view; let go of after it
    HeldStream<CropStream> stream_;
};

}  // namespace

void register_fields(py::module_& module) {  // NOLINT(misc-const-correctness)
    py::class_<Crops>(module, "Crops")
        .def(py::init<const py::dict&>(), py::arg("options"))
        .def("push", &Crops::push, py::arg("sources"), py::arg("illumination").noconvert(),
             py::arg("labels").noconvert(), py::arg("centres").noconvert(), py::arg("objects").noconvert())
        .def("next", &Crops::next)
        .def("close", &Crops::close);
}

}  // namespace chammi::bindings
