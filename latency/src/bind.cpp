// Python bindings: arrays and numbers are checked in constructors, once; predictions trust them.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstddef>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "predictor.hpp"

namespace py = pybind11;
using namespace prunemap;

namespace {

using Numbers = std::tuple<double, double, double>;
using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;

Numbers numbers(const Priced& cost) { return {cost.ms, cost.error, cost.staged}; }

Priced priced(const Numbers& cost) { return {std::get<0>(cost), std::get<1>(cost), std::get<2>(cost)}; }

// (cells, 4): ms at a cell's start, what it grows to the cell's end, error, and how often the input is staged.
Curve make_curve(const Doubles& cells) {
  if (cells.ndim() != 2 || cells.shape(1) != 4) throw std::invalid_argument("curve: cells must be an (n, 4) array");
  std::vector<Curve::Cell> own;
  for (py::ssize_t i = 0; i < cells.shape(0); ++i)
    own.push_back({cells.at(i, 0), cells.at(i, 1), cells.at(i, 2), cells.at(i, 3)});
  return Curve(std::move(own));
}

// values: (inputs, outputs).
Surface make_surface(std::vector<double> inputs, std::vector<double> outputs, const Doubles& values) {
  return {std::move(inputs), std::move(outputs), {values.data(), values.data() + values.size()}};
}

void bind_interpolation(py::module_& m) {
  py::class_<Curve, std::shared_ptr<Curve>>(m, "Curve")
      .def(py::init(&make_curve), py::arg("cells"))
      .def("at", [](const Curve& curve, double share) { return numbers(curve.at(share)); }, py::arg("share"));
  py::class_<Surface, std::shared_ptr<Surface>>(m, "Surface")
      .def(py::init(&make_surface), py::arg("inputs"), py::arg("outputs"), py::arg("values"))
      .def("at", &Surface::at, py::arg("inputs"), py::arg("outputs"));
}

Option make_option(const Layer& layer, const std::string& scheme, double rate, const Effect& effect, double density,
                   int together, bool whole, const std::shared_ptr<Curve>& curve, const std::string& unmeasured) {
  return layer.prepared({effect, {}, density, together, whole, curve, rate, scheme, unmeasured});
}

void bind_layers(py::module_& m) {
  m.def("computed_share", &computed_share, py::arg("stored"), py::arg("filters"), py::arg("together"), py::arg("rows"));
  py::class_<Effect>(m, "Effect")
      .def(py::init([](double written, double unread, int rows) {
             return Effect{written, unread, rows};
           }),
           py::arg("written") = 1.0, py::arg("unread") = 0.0, py::arg("rows") = 0)
      .def_readonly("written", &Effect::written)
      .def_readonly("unread", &Effect::unread)
      .def_readonly("rows", &Effect::rows);
  py::class_<Option>(m, "Option").def_property_readonly("alone", [](const Option& option) {
    return numbers(option.alone);
  });
  py::class_<Layer, std::shared_ptr<Layer>>(m, "Layer")
      .def("dense", &Layer::dense)
      .def("option", &make_option, py::arg("scheme"), py::arg("rate"), py::arg("effect"), py::arg("density"),
           py::arg("together"), py::arg("whole"), py::arg("curve").none(true), py::arg("unmeasured"));
  py::class_<ChannelLayer, Layer, std::shared_ptr<ChannelLayer>>(m, "ChannelLayer")
      .def(py::init([](const Numbers& whole, int filters, double least, bool follows, const std::shared_ptr<Surface>& surface,
                       const std::shared_ptr<Surface>& staged) {
             return ChannelLayer(priced(whole), filters, least, follows, surface, staged);
           }),
           py::arg("whole"), py::arg("filters"), py::arg("least"), py::arg("follows"), py::arg("surface").none(false),
           py::arg("staged").none(true));
  py::class_<WeightLayer, Layer, std::shared_ptr<WeightLayer>>(m, "WeightLayer")
      .def(py::init([](const Numbers& whole, const std::shared_ptr<Curve>& dense) {
             return WeightLayer(priced(whole), dense);
           }),
           py::arg("whole"), py::arg("dense").none(false));
}

using Step = std::tuple<int, int, int, Kind, int>;
using Held = std::pair<std::vector<int>, int>;

std::shared_ptr<Graph> make_graph(std::vector<int> filters, int groups, int output, const std::vector<Step>& steps,
                                  std::vector<int> whole, const std::vector<Held>& ties) {
  std::vector<Operation> operations;
  for (const auto& [value, source, other, kind, group] : steps)
    operations.push_back({value, source, other, kind, group});
  std::vector<Tie> tied;
  for (const auto& [values, group] : ties) tied.push_back({values, group});
  return std::make_shared<Graph>(std::move(filters), groups, output, std::move(operations), std::move(whole), std::move(tied));
}

// (zero, unneeded, held), each by number of value, and (alive, chance), by layer.
auto shares(const Graph& graph, const std::vector<Effect>& effects, const std::set<std::size_t>& alike) {
  Alike groups = graph.none_alike();
  for (const std::size_t group : alike) groups.at(group) = true;
  Shares found = graph.shares(effects, groups);
  return std::make_tuple(std::move(found.zero), std::move(found.unneeded), std::move(found.held), std::move(found.alive),
                         std::move(found.chance));
}

void bind_graph(py::module_& m) {
  py::enum_<Kind>(m, "Kind").value("layer", Kind::layer).value("depthwise", Kind::depthwise)
      .value("addition", Kind::addition).value("opaque", Kind::opaque);
  py::class_<Graph, std::shared_ptr<Graph>>(m, "Graph")
      .def(py::init(&make_graph), py::arg("filters"), py::arg("groups"), py::arg("output"), py::arg("operations"),
           py::arg("whole"), py::arg("ties"))
      .def_property_readonly("sources", &Graph::sources)
      .def("shares", &shares, py::arg("effects"), py::arg("alike"));
}

using Producers = std::tuple<int, int, std::vector<int>>;
using Readers = std::vector<std::pair<int, std::shared_ptr<Curve>>>;

Predictor make_predictor(const std::vector<std::string>& names, const std::vector<std::shared_ptr<Layer>>& layers,
                         const std::shared_ptr<Graph>& graph, std::vector<int> writes,
                         const std::vector<Producers>& removable, const std::vector<Readers>& sharers) {
  std::vector<Removable> groups;
  for (const auto& [group, first, others] : removable) groups.push_back({group, first, others});
  std::vector<Sharers> shared;
  for (const Readers& readers : sharers) {
    shared.emplace_back();
    for (const auto& [layer, staging] : readers) shared.back().push_back({layer, staging});
  }
  return {names, {layers.begin(), layers.end()}, graph, std::move(writes), std::move(groups), std::move(shared)};
}

void bind_predictor(py::module_& m) {
  py::class_<Left>(m, "Left")
      .def(py::init([](double kept, double inputs, double stored, double planes, bool alive) {
             return Left{kept, inputs, stored, planes, alive};
           }),
           py::arg("kept"), py::arg("inputs"), py::arg("stored"), py::arg("planes"), py::arg("alive"))
      .def_readonly("kept", &Left::kept)
      .def_readonly("inputs", &Left::inputs)
      .def_readonly("stored", &Left::stored)
      .def_readonly("planes", &Left::planes)
      .def_readonly("alive", &Left::alive);
  py::class_<Predictor>(m, "Predictor")
      .def(py::init(&make_predictor), py::arg("names"), py::arg("layers"), py::arg("graph").none(false),
           py::arg("writes"), py::arg("removable"), py::arg("sharers"))
      .def("total",
           [](Predictor& predictor, const py::iterable& items, const py::function& prepare,
              const std::vector<Left>& left) {
             const Total total = Pricer::total(predictor.costs(items, prepare, left));
             return std::make_tuple(total.ms, total.error, total.spread, total.doubt);
           },
           py::arg("items"), py::arg("prepare"), py::arg("left") = std::vector<Left>())
      .def("layers_ms",
           [](Predictor& predictor, const py::iterable& items, const py::function& prepare,
              const std::vector<Left>& left) {
             std::vector<double> ms;
             for (const Priced& cost : predictor.costs(items, prepare, left).layers) ms.push_back(cost.ms);
             return ms;
           },
           py::arg("items"), py::arg("prepare"), py::arg("left") = std::vector<Left>());
}

void tell_unmeasured(std::exception_ptr raised) {
  try {
    if (raised) std::rethrow_exception(raised);
  } catch (const Unmeasured& error) {
    py::set_error(py::module_::import("prunemap.pruning.errors").attr("PrunemapError"), error.what());
  }
}

}  // namespace

PYBIND11_MODULE(_pricing, m) {
  m.doc() = "What the layers of a network cost under a mapping, from curves and surfaces of what was measured.";
  py::register_local_exception_translator(&tell_unmeasured);
  bind_interpolation(m);
  bind_layers(m);
  bind_graph(m);
  bind_predictor(m);
}
