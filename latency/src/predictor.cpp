#include "predictor.hpp"

#include <functional>
#include <stdexcept>
#include <utility>

namespace py = pybind11;

namespace prunemap {

namespace {

std::size_t mixed(std::size_t seed, std::size_t value) {
  return seed ^ (value + 0x9e3779b97f4a7c15u + (seed << 6) + (seed >> 2));
}

py::str interned(const char* text) { return py::reinterpret_steal<py::str>(PyUnicode_InternFromString(text)); }

}  // namespace

std::size_t HashAsked::operator()(const Asked& asked) const {
  return mixed(mixed(static_cast<std::size_t>(py::hash(asked.scheme)), std::hash<double>()(asked.rate)), asked.layer);
}

Predictor::Predictor(const std::vector<std::string>& names, std::vector<std::shared_ptr<const Layer>> layers,
                     std::shared_ptr<const Graph> graph, std::vector<int> writes, std::vector<Removable> removable,
                     std::vector<Sharers> sharers)
    : pricer_(layers, std::move(graph), std::move(writes), std::move(removable), std::move(sharers)),
      scheme_(interned("scheme")),
      rate_(interned("rate")) {
  if (names.size() != layers.size()) throw std::invalid_argument("predictor: there must be one name per layer");
  for (std::size_t number = 0; number < names.size(); ++number) numbers_[py::str(names[number])] = number;
  for (const auto& layer : layers) dense_.push_back(layer->dense());
}

Costs Predictor::costs(const py::iterable& items, const py::function& prepare, const std::vector<Left>& left) {
  std::vector<const Option*> chosen;
  chosen.reserve(dense_.size());
  for (const Option& option : dense_) chosen.push_back(&option);
  for (const py::handle item : items) {
    if (!PyTuple_CheckExact(item.ptr()) || PyTuple_GET_SIZE(item.ptr()) != 2)
      throw py::type_error("predictor: items must be pairs of a layer's name and its choice");
    const py::handle name = PyTuple_GET_ITEM(item.ptr(), 0), choice = PyTuple_GET_ITEM(item.ptr(), 1);
    const std::size_t layer = number(name, choice, prepare);
    chosen[layer] = &option(layer, name, choice, prepare);
  }
  return pricer_.costs(chosen, left);
}

std::size_t Predictor::number(const py::handle& name, const py::handle& choice, const py::function& prepare) const {
  PyObject* const found = PyDict_GetItemWithError(numbers_.ptr(), name.ptr());
  if (found != nullptr) return PyLong_AsSize_t(found);
  if (PyErr_Occurred() != nullptr) throw py::error_already_set();
  prepare(name, choice);  // says what is wrong with the name
  throw py::key_error("predictor: no such layer");
}

const Option& Predictor::option(std::size_t layer, const py::handle& name, const py::handle& choice,
                                const py::function& prepare) {
  Asked asked{layer, py::getattr(choice, scheme_), py::getattr(choice, rate_).cast<double>()};
  const auto place = known_.find(asked);
  if (place != known_.end()) return place->second;
  return known_.emplace(std::move(asked), prepare(name, choice).cast<Option>()).first->second;
}

}  // namespace prunemap
