#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <vector>

#include "chammi/buffer.hpp"
#include "chammi/file.hpp"
#include "chammi/image.hpp"
#include "chammi/status.hpp"

namespace chammi::bindings {

namespace py = pybind11;

/// (code, byte offset or None, cause), which chammi_fast.images turns into an exception.
py::tuple to_python(const Status& status);

/// An array over `data` in memory that stays alive as long as the array does.
py::array adopt(const std::shared_ptr<Buffer>& owner, const std::uint8_t* data, const py::dtype& dtype,
                const std::vector<py::ssize_t>& shape);

/// NumPy's name of a type.
const char* name_of(SampleType type) noexcept;
/// The type that NumPy gives that name.
SampleType type_of(const py::dtype& dtype);

/// Bytes are an encoded image, which lives as long as the object; what else there is, is a path, as for os.fsencode.
ImageSource source_from(py::handle source);

void register_images(py::module_& module);
void register_batch(py::module_& module);
void register_fields(py::module_& module);

}  // namespace chammi::bindings
