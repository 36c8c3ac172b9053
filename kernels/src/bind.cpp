// Python bindings: types and shapes are checked here, memory ranges in Program; the GIL is released while running.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <stdexcept>

#include "dispatch.hpp"
#include "functions.hpp"
#include "gather.hpp"
#include "program.hpp"
#include "roof_loop.hpp"

namespace py = pybind11;
using namespace prunemap;

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;

void require(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(what);
}

template <class T>
std::vector<T> copied(const Array<T>& array) {
  return {array.data(), array.data() + array.size()};
}

// runs: (n, 5) of offsets, weights, count, filter, size; sets: (n * blocks, kSets) or empty.
FilterData make_filters(const Array<std::int64_t>& runs, const Array<std::int32_t>& offsets,
                        const Array<float>& weights, const Array<float>& bias, const Array<std::int32_t>& rows,
                        std::pair<float, float> clamp, const Array<std::int32_t>& sets) {
  require(runs.ndim() == 2 && runs.shape(1) == 5, "filters: runs must be an (n, 5) array");
  FilterData data{{},           copied(offsets), copied(weights), copied(bias), copied(rows),
                  copied(sets), clamp.first,     clamp.second};
  const auto limit = [](std::int64_t value) {
    require(value >= 0 && value <= INT32_MAX, "filters: a run is too large");
    return static_cast<std::int32_t>(value);
  };
  for (py::ssize_t i = 0; i < runs.shape(0); ++i)
    data.runs.push_back({runs.at(i, 0), runs.at(i, 1), limit(runs.at(i, 2)), limit(runs.at(i, 3)), limit(runs.at(i, 4))});
  return data;
}

// The weights of every run's list: (entries, width).
py::array_t<float> gather_weights(const Array<float>& weights, const Array<bool>& listed,
                                  const Array<std::int64_t>& filters, std::int64_t width) {
  require(weights.ndim() == 2 && listed.ndim() == 2 && filters.ndim() == 2, "gather: expected three matrices");
  require(listed.shape(1) == weights.shape(1) && filters.shape(0) == listed.shape(0), "gather: shapes do not fit");
  require(width >= filters.shape(1) && width <= 1024, "gather: width is less than the filters of a run, or too large");
  for (py::ssize_t i = 0; i < filters.size(); ++i)
    require(filters.data()[i] >= 0 && filters.data()[i] < weights.shape(0), "gather: no such filter");
  const py::ssize_t entries = std::count(listed.data(), listed.data() + listed.size(), true);
  py::array_t<float> gathered({entries, static_cast<py::ssize_t>(width)});
  const Gather from{weights.data(),  listed.data(),   filters.data(), listed.shape(0),
                    listed.shape(1), filters.shape(1), width};
  float* to = gathered.mutable_data();
  const py::gil_scoped_release release;
  gather(from, to);
  return gathered;
}

template <class T>
py::array_t<T> to_array(const std::vector<T>& values) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

// (entries and weights per run, offsets, weights, (runs * blocks, kSets) entries by set) of lists sorted by sets.
py::tuple jam_weights(const Array<float>& weights, const Array<bool>& mask, const Array<std::int64_t>& filters,
                      const Array<std::int32_t>& offsets, const Array<std::int64_t>& groups, std::int64_t block) {
  require(weights.ndim() == 2 && mask.ndim() == 2 && filters.ndim() == 2 && offsets.ndim() == 2 && groups.ndim() == 1,
          "jam: expected four matrices and a vector");
  require(mask.shape(0) == weights.shape(0) && mask.shape(1) == weights.shape(1) && weights.shape(1) < 1 << 30 && block >= 1 &&
              offsets.shape(1) == weights.shape(1) && filters.shape(1) == kMaxJammed &&
              groups.shape(0) == filters.shape(0),
          "jam: shapes do not fit");
  for (py::ssize_t i = 0; i < filters.size(); ++i) require(filters.data()[i] < weights.shape(0), "jam: no such filter");
  for (py::ssize_t i = 0; i < groups.size(); ++i)
    require(groups.data()[i] >= 0 && groups.data()[i] < offsets.shape(0), "jam: no such group");
  const Jam from{weights.data(), mask.data(),      filters.data(),   offsets.data(),
                 groups.data(),  filters.shape(0), weights.shape(1), std::min<std::int64_t>(block, 1 << 30)};
  Jammed made;
  {
    const py::gil_scoped_release release;
    made = jam(from);
  }
  const auto rows = static_cast<py::ssize_t>(made.sets.size()) / kSets;
  return py::make_tuple(to_array(made.entries), to_array(made.stored), to_array(made.offsets), to_array(made.weights),
                        to_array(made.sets).reshape({rows, py::ssize_t{kSets}}));
}

py::array_t<float> run(Program& program, const Array<float>& input) {
  const std::int64_t images = program.images(input.size());
  py::array_t<float> output({static_cast<py::ssize_t>(images), static_cast<py::ssize_t>(program.output_size())});
  const float* from = input.data();
  float* to = output.mutable_data();
  {
    const py::gil_scoped_release release;
    program.run(from, to, images);
  }
  return output;
}

py::array_t<double> time_runs(Program& program, const Array<float>& input, std::int64_t repeats) {
  program.check_timing(input.size(), repeats, 1);
  std::vector<float> output(static_cast<std::size_t>(program.output_size()));
  const float* from = input.data();
  std::vector<double> taken;
  {
    const py::gil_scoped_release release;
    taken = program.time(from, output.data(), repeats);
  }
  return to_array(taken);
}

py::array_t<double> time_steps(Program& program, const Array<float>& input, std::int64_t repeats,
                               const std::vector<std::size_t>& chosen) {
  program.check_timing(input.size(), repeats, chosen.size());
  std::vector<float> output(static_cast<std::size_t>(program.output_size()));
  const float* from = input.data();
  std::vector<double> taken;
  {
    const py::gil_scoped_release release;
    taken = program.time_steps(from, output.data(), repeats, chosen);
  }
  return to_array(taken);
}

py::array_t<double> time_roof(RoofLoop& loop, std::int64_t repeats) {
  require(repeats >= 1 && repeats <= 100000000, "time: repeats must be at least 1");
  std::vector<double> taken;
  {
    const py::gil_scoped_release release;
    taken = loop.time(repeats);
  }
  return to_array(taken);
}

// (lanes, {filters per run: most pixel vectors}, {filters per run: most pixels beyond the last vector}, {channel vectors:
// most pixels}) of each family of an ISA.
py::list families(const std::string& isa) {
  const KernelTable& table = find_table(isa);
  py::list all;
  for (int i = 0; i < table.families; ++i) {
    py::dict pixel, rest, channel;
    for (int s = 0; s < kSizes; ++s) {
      if (table.pixel[i].max_vectors[s] > 0) pixel[py::int_(1 << s)] = table.pixel[i].max_vectors[s];
      if (table.pixel[i].max_rest[s] > 0) rest[py::int_(1 << s)] = table.pixel[i].max_rest[s];
    }
    for (int q = 0; q < 3; ++q) channel[py::int_(1 << q)] = table.channel[i].max_pixels[q];
    all.append(py::make_tuple(table.pixel[i].lanes, pixel, rest, channel));
  }
  return all;
}

void bind_types(py::module_& m) {
  py::enum_<Space>(m, "Space").value("arena", Space::arena).value("input", Space::input).value("output", Space::output);
  py::class_<Planes>(m, "Planes")
      .def(py::init([](Space space, std::int64_t base, std::int64_t stride, std::int64_t before, std::int32_t pitch,
                       std::tuple<std::int32_t, std::int32_t, std::int32_t> shape) {
             return Planes{space, base, stride, before, pitch, std::get<0>(shape), std::get<1>(shape), std::get<2>(shape)};
           }),
           py::arg("space"), py::arg("base"), py::arg("stride"), py::arg("before"), py::arg("pitch"), py::arg("shape"));
  py::class_<FilterData>(m, "Filters")
      .def(py::init(&make_filters), py::arg("runs"), py::arg("offsets"), py::arg("weights"), py::arg("bias"),
           py::arg("rows"), py::arg("clamp"), py::arg("sets") = Array<std::int32_t>(0));
  py::class_<Tile>(m, "Tile")
      .def(py::init([](std::int32_t lanes, std::int32_t vectors, std::int32_t rows, std::int32_t columns,
                       std::int32_t joined, std::int32_t rest, std::int32_t passes, bool outer) {
             return Tile{lanes, vectors, rows, columns, joined, rest, passes, outer};
           }),
           py::arg("lanes"), py::arg("vectors"), py::arg("rows"), py::arg("columns"),
           py::arg("joined"), py::arg("rest"), py::arg("passes"), py::arg("runs_outer"));
}

using Pair = std::pair<std::int32_t, std::int32_t>;

using Parts = std::vector<std::pair<std::vector<std::int32_t>, Array<float>>>;

std::vector<Part> as_parts(const Parts& parts) {
  std::vector<Part> all;
  for (const auto& [inputs, factors] : parts) {
    const auto size = static_cast<py::ssize_t>(inputs.size());
    require(size <= kMostInputs, "winograd: too many inputs of a part");
    require(factors.ndim() == 2 && factors.shape(0) == size && factors.shape(1) == size, "winograd: factors of other inputs");
    Part part{static_cast<std::int32_t>(size), {}, {}};
    for (py::ssize_t i = 0; i < size; ++i) {
      part.input[i] = inputs[static_cast<std::size_t>(i)];
      for (py::ssize_t j = 0; j < size; ++j) part.factor[i][j] = factors.at(i, j);
    }
    all.push_back(part);
  }
  return all;
}

// (n, 7): channel; first, end and step of rows, and of columns.
std::vector<Hole> as_holes(const Array<std::int32_t>& holes) {
  require(holes.ndim() == 2 && holes.shape(1) == 7, "winograd: holes must be an (n, 7) array");
  std::vector<Hole> all;
  for (py::ssize_t i = 0; i < holes.shape(0); ++i) {
    const auto span = [&](py::ssize_t at) { return Span{holes.at(i, at), holes.at(i, at + 1), holes.at(i, at + 2)}; };
    all.push_back({holes.at(i, 0), span(1), span(4)});
  }
  return all;
}

Filtering make_filtering(std::int32_t cell, const Parts& rows, const Parts& columns, Pair components, Pair step,
                         Pair padding, const std::vector<std::int32_t>& channels, const Array<std::int32_t>& holes,
                         std::int32_t band, std::int32_t chunk, std::int64_t stride, const Array<float>& bias,
                         std::pair<float, float> clamp) {
  return {cell, as_parts(rows), as_parts(columns), components.first, components.second, step.first, step.second,
          padding.first, padding.second, channels, as_holes(holes), band, chunk, stride, copied(bias), clamp.first, clamp.second};
}

void bind_filtering(py::module_& m) {
  py::class_<Filtering>(m, "Filtering")
      .def(py::init(&make_filtering), py::arg("cell"), py::arg("rows"), py::arg("columns"), py::arg("components"), py::arg("step"),
           py::arg("padding"), py::arg("channels"), py::arg("holes"), py::arg("band"), py::arg("chunk"), py::arg("stride"), py::arg("bias"),
           py::arg("clamp"));
}

void add_pool(Program& program, const Planes& from, const Planes& to, bool maximum,
              const std::array<std::int32_t, 6>& window, bool count_padding, bool clear) {
  program.pool({from, to, maximum ? PoolKind::max : PoolKind::average, window[0], window[1], window[2], window[3],
                window[4], window[5], count_padding, false},
               clear);
}

std::vector<Phase> as_phases(const std::vector<Pair>& phases) {
  std::vector<Phase> all;
  for (const auto& p : phases) all.push_back({p.first, p.second});
  return all;
}

void add_stage(Program& program, const Planes& from, const Planes& to, const std::vector<Pair>& phases, Pair step,
               bool clear) {
  program.stage(from, to, as_phases(phases), step.first, step.second, clear);
}

void add_panel_conv(Program& program, const FilterData& filters, const Array<std::int32_t>& panel, const Tile& tile,
                    const Planes& from, const Planes& to, const Planes* residual, bool clear) {
  require(panel.ndim() == 1, "convolution: a panel must be an array of offsets");
  program.panel_conv(filters, copied(panel), tile, from, to, residual, clear);
}

void add_rows_conv(Program& program, const FilterData& filters, const Array<std::int32_t>& columns, const Tile& tile,
                   const Planes& from, const Planes& to, const Planes* residual, Pair step, bool clear) {
  require(columns.ndim() == 1, "convolution: columns must be an array");
  program.rows_conv(filters, copied(columns), tile, from, to, residual, step.first, step.second, clear);
}

void bind_program(py::module_& m) {
  py::class_<Program>(m, "Program")
      .def(py::init<const std::string&, int, std::int64_t, std::int64_t, std::int64_t, std::int64_t>(), py::arg("isa"),
           py::arg("threads"), py::arg("arena"), py::arg("input"), py::arg("output"), py::arg("scratch") = 0)
      .def("pixel_conv", &Program::pixel_conv, py::arg("filters"), py::arg("tile"), py::arg("source"),
           py::arg("target"), py::arg("residual").none(true), py::arg("clear"))
      .def("panel_conv", &add_panel_conv, py::arg("filters"), py::arg("panel"), py::arg("tile"), py::arg("source"),
           py::arg("target"), py::arg("residual").none(true), py::arg("clear"))
      .def("channel_conv",
           [](Program& program, const FilterData& filters, const Tile& tile, const Planes& from, const Planes& to,
              const Planes* residual, std::pair<std::int32_t, std::int32_t> step, bool clear) {
             program.channel_conv(filters, tile, from, to, residual, step.first, step.second, clear);
           },
           py::arg("filters"), py::arg("tile"), py::arg("source"), py::arg("target"), py::arg("residual").none(true),
           py::arg("step"), py::arg("clear"))
      .def("rows_conv", &add_rows_conv, py::arg("filters"), py::arg("columns"), py::arg("tile"), py::arg("source"),
           py::arg("target"), py::arg("residual").none(true), py::arg("step"), py::arg("clear"))
      .def("winograd_conv", &Program::winograd_conv, py::arg("products"), py::arg("filtering"), py::arg("tile"),
           py::arg("source"), py::arg("target"), py::arg("residual").none(true), py::arg("clear"))
      .def("stage", &add_stage, py::arg("source"), py::arg("target"), py::arg("phases"), py::arg("step"),
           py::arg("clear"))
      .def("pool", &add_pool, py::arg("source"), py::arg("target"), py::arg("maximum"), py::arg("window"),
           py::arg("count_padding"), py::arg("clear"))
      .def("add",
           [](Program& program, const Planes& from, const Planes* other, const Planes& to,
              std::pair<float, float> clamp, bool clear) {
             program.add(from, other, to, clamp.first, clamp.second, clear);
           },
           py::arg("source"), py::arg("other").none(true), py::arg("target"), py::arg("clamp"), py::arg("clear"))
      .def("function", &Program::function, py::arg("name"), py::arg("source"), py::arg("target"), py::arg("clear"))
      .def("run", &run, py::arg("input").noconvert())
      .def("time", &time_runs, py::arg("input").noconvert(), py::arg("repeats"))
      .def("time_steps", &time_steps, py::arg("input").noconvert(), py::arg("repeats"), py::arg("chosen"))
      .def_property_readonly("steps", &Program::steps);
}

void bind_roof(py::module_& m) {
  py::class_<RoofLoop>(m, "RoofLoop")
      .def(py::init<const std::string&, const std::string&, int, std::int64_t, std::int64_t, int>(), py::arg("isa"),
           py::arg("loop"), py::arg("lanes"), py::arg("floats"), py::arg("passes"), py::arg("threads"))
      .def("time", &time_roof, py::arg("repeats"))
      .def_property_readonly("flops", &RoofLoop::flops)
      .def_property_readonly("bytes", &RoofLoop::bytes)
      .def_property_readonly("size", &RoofLoop::size);
}

}  // namespace

PYBIND11_MODULE(_engine, m) {
  m.doc() = "Sparse and dense convolution kernels and the programs made of them.";
  m.def("built_isas", &built_isas);
  m.def("supported_isas", &supported_isas);
  m.def("function_names", &function_names);
  m.attr("MAX_JAMMED") = kMaxJammed;
  m.attr("MAX_ROW_STEP") = kRowSteps;
  m.attr("CELL_ROWS") = kCellRows;
  m.attr("MAX_WINOGRAD_STEP") = kWinogradSteps;
  m.attr("MAX_ROWS") = kMaxRows;
  m.attr("MAX_EVEN_COLUMNS") = kMaxEvenColumns;
  m.def("has_columns", &has_columns, py::arg("columns"), py::arg("step"));
  m.def("families", &families, py::arg("isa"));
  m.def("gather_weights", &gather_weights, py::arg("weights"), py::arg("listed"), py::arg("filters"), py::arg("width"));
  m.def("jam_weights", &jam_weights, py::arg("weights"), py::arg("mask"), py::arg("filters"), py::arg("offsets"),
        py::arg("groups"), py::arg("block"));
  bind_types(m);
  bind_filtering(m);
  bind_program(m);
  bind_roof(m);
}
