// A network as a list of steps over one arena: checked when built, then run with no allocation and no Python.
#pragma once
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "memory.hpp"
#include "table.hpp"
#include "thread_pool.hpp"

namespace prunemap {

// Packed filters as they come from outside, not yet checked.
struct FilterData {
  std::vector<Run> runs;
  std::vector<std::int32_t> offsets;
  std::vector<float> weights, bias;
  std::vector<std::int32_t> rows;
  std::vector<std::int32_t> sets;  // kSets per block, equally many blocks per run, or none
  float low, high;
};

// How a convolution is tiled.
struct Tile {
  std::int32_t lanes;     // of one vector
  std::int32_t vectors;   // pixel family: of pixels; channel family: of output channels, at most
  std::int32_t rows, columns;  // channel family: output pixels
  std::int32_t joined;         // channel family: rows with nothing between them that are walked as one
  std::int32_t rest;           // pixel family: pixels beyond the last vector that have filters in the lanes; 0: none
  std::int32_t passes;         // pixel family: over a tile, each with runs of its own for the same filters
  bool runs_outer;
};

// Winograd's minimal filtering as it comes from outside.
struct Filtering {
  std::int32_t cell;                // outputs along each axis that are computed together
  std::vector<Part> rows, columns;  // inputs counted from the first that a cell reads
  std::int32_t row_components, column_components;
  std::int32_t step_y, step_x, pad_y, pad_x;
  std::vector<std::int32_t> channels;  // of the input, each read by all terms
  std::vector<Hole> holes;             // by channel
  std::int32_t band, chunk;            // rows of cells, filters, that are computed together
  std::int64_t stride;                 // floats from one plane in between to the next
  std::vector<float> bias;
  float low, high;
};

class Program {
 public:
  // Sizes in floats; `scratch`: of memory for steps in between, one for each thread.
  Program(const std::string& isa, int threads, std::int64_t arena, std::int64_t input, std::int64_t output,
          std::int64_t scratch = 0);

  // Each adds a step. `clear`: the output's margins may hold what another tensor left there. `residual` may be null.
  // All throw std::invalid_argument when a step could touch memory outside its buffers.
  void pixel_conv(const FilterData& filters, const Tile& tile, const Planes& from, const Planes& to,
                  const Planes* residual, bool clear);
  // A pixel_conv that copies what a tile reads into a panel of the scratch memory: one row per offset of `panel`, as long
  // as a tile; of several passes equally many for each. The lists lead there.
  void panel_conv(const FilterData& filters, const std::vector<std::int32_t>& panel, const Tile& tile, const Planes& from,
                  const Planes& to, const Planes* residual, bool clear);
  void channel_conv(const FilterData& filters, const Tile& tile, const Planes& from, const Planes& to,
                    const Planes* residual, std::int32_t step_y, std::int32_t step_x, bool clear);
  // Runs of one filter. `columns`: how far right of the output's column each entry of the lists reads.
  void rows_conv(const FilterData& filters, const std::vector<std::int32_t>& columns, const Tile& tile, const Planes& from,
                 const Planes& to, const Planes* residual, std::int32_t step_y, std::int32_t step_x, bool clear);
  // `products`: a pixel_conv of planes in between, per chunk of filters: those of sums (filter, row component, column
  // component) from those of transformed inputs (channel, row term, column term). Rows of one chunk begin at 0 again, its
  // runs lie together.
  void winograd_conv(const FilterData& products, const Filtering& filtering, const Tile& tile, const Planes& from,
                     const Planes& to, const Planes* residual, bool clear);
  void stage(const Planes& from, const Planes& to, const std::vector<Phase>& phases, std::int32_t step_y,
             std::int32_t step_x, bool clear);
  void pool(Pool pool, bool clear);  // sets `whole` itself
  void add(const Planes& from, const Planes* other, const Planes& to, float low, float high, bool clear);
  void function(const std::string& name, const Planes& from, const Planes& to, bool clear);

  std::size_t steps() const { return steps_.size(); }
  std::int64_t input_size() const { return input_; }
  std::int64_t output_size() const { return output_; }

  // Images in an input of so many floats.
  std::int64_t images(std::int64_t size) const;
  void run(const float* input, float* output, std::int64_t images);

  // What both kinds of timing take: one image, and as many samples as are worth keeping.
  void check_timing(std::int64_t size, std::int64_t repeats, std::size_t steps) const;

  // Seconds of `repeats` whole runs.
  std::vector<double> time(const float* input, float* output, std::int64_t repeats);

  // Seconds (repeats x chosen) of single steps, run in the order of `chosen` and over again.
  std::vector<double> time_steps(const float* input, float* output, std::int64_t repeats,
                                 const std::vector<std::size_t>& chosen);

 private:
  struct Margin {  // zeroed by the first part before its share of the step
    Planes planes;
    std::int64_t covered;  // floats of each plane that the step writes itself; 0: only the pixels
  };
  struct Step {
    StepFunction run = nullptr;
    const void* parameters = nullptr;
    std::vector<std::int64_t> bounds;  // part i has the units [bounds[i], bounds[i + 1])
    std::vector<Margin> margins;
  };

  template <class P>
  void push(StepFunction run, const P& parameters, const std::vector<std::int64_t>& work, const Planes& to,
            std::int64_t covered, bool clear);
  // lanes: of the channel family; 0 for the pixel family.
  Filters keep_filters(const FilterData& filters, const Planes& to, std::int32_t lanes, std::int32_t passes = 1);
  // Lists lead from `in`; where to is not checked. `scratch`: floats of the scratch memory that are taken.
  PixelConv make_pixel_conv(const FilterData& filters, const Tile& tile, std::int64_t in, const Planes& to,
                            const Planes* residual, std::int64_t scratch);
  const std::int32_t* mask(const Planes& to, std::int64_t lanes, std::int64_t vectors, std::int32_t shift = 0);
  bool are_alike(const Planes& from, const Planes& to, const std::vector<Phase>& phases, std::int64_t span) const;
  std::int64_t capacity(Space space) const;
  void check_planes(const Planes& p, const char* what) const;
  void check_input(const Planes& from, const std::vector<std::int32_t>& offsets, std::int64_t reach) const;
  void check_span(const Planes& p, std::int64_t span, const char* what) const;
  bool whole_vectors(const FilterData& filters, std::int32_t lanes, const Planes& to, const Planes* residual) const;
  void check_residual(const Planes& residual, const Planes& to) const;
  std::int64_t check_rest(const FilterData& filters, const Tile& tile, const Planes& to, const PixelFamily& family) const;
  Frame frame_of(const float* input, float* output, int part);
  void run_part(const float* input, float* output, int part);
  void run_step(const Step& step, const Frame& frame, int part) const;

  const KernelTable& table_;
  int threads_;
  std::int64_t arena_size_, input_, output_, scratch_;
  Memory memory_;
  float* arena_;
  std::vector<float*> scratches_;  // of each thread; sanitisers see what leaves it
  std::vector<Step> steps_;
  std::map<std::tuple<std::int32_t, std::int32_t, std::int32_t, std::int64_t, std::int32_t>, const std::int32_t*> masks_;
  ThreadPool pool_;
  std::mutex running_;
};

template <class P>
void Program::push(StepFunction run, const P& parameters, const std::vector<std::int64_t>& work, const Planes& to,
                   std::int64_t covered, bool clear) {
  const bool clears = clear && to.space == Space::arena;
  if (clears) check_span(to, to.stride, "margins to clear end outside the arena");
  Step step;
  step.run = run;
  step.parameters = memory_.copy(std::vector<P>{parameters});
  std::int64_t total = 0;
  for (const std::int64_t w : work) total += w;
  step.bounds.push_back(0);
  std::int64_t done = 0, unit = 0;
  const auto units = static_cast<std::int64_t>(work.size());
  for (int part = 1; part < threads_; ++part) {
    while (unit < units && done * threads_ < total * part) done += work[static_cast<std::size_t>(unit++)];
    step.bounds.push_back(unit);
  }
  step.bounds.push_back(units);
  if (clears) step.margins.push_back({to, covered});
  steps_.push_back(std::move(step));
}

}  // namespace prunemap
