// The engine as a process of its own, without Python: every method of Program as a message on standard input, so that
// the Python tests also run where only the engine was built: on an emulated CPU, under sanitisers (engine_process.py).
//
// A message is a line of words, then the raw bytes of its arrays; so is an answer: "ok" or "error" first.
// Every result is computed several ways that must give the same bits: again, on two threads and, under an address
// sanitiser, in the smallest arena that the checks accept, where a step that reads or writes a float more is seen.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "dispatch.hpp"
#include "functions.hpp"
#include "program.hpp"

using namespace prunemap;

namespace {

// Where the planes of a step are put: all of them `down`, and one of them, by its number, `up`.
struct Moves {
  std::int64_t down = 0, up = 0;
  int which = -1;
};

// Takes the arguments of a message, in order, by their types.
class Decoder {
 public:
  explicit Decoder(const std::string& line, std::istream& bytes, const Moves& moves = {})
      : words_(line), bytes_(bytes), moves_(moves) {}

  template <class T>
  T take() {
    T value{};
    read(value);
    return value;
  }

 private:
  template <class T>
  std::enable_if_t<std::is_integral_v<T>> read(T& value) {
    const long long number = std::stoll(take<std::string>());
    if (number < static_cast<long long>(std::numeric_limits<T>::min()) ||
        number > static_cast<long long>(std::numeric_limits<T>::max()))
      throw std::invalid_argument("number out of range");
    value = static_cast<T>(number);
  }
  template <class... T>
  void read_all(T&... values) {
    (read(values), ...);
  }
  void read(float& value) { value = std::strtof(take<std::string>().c_str(), nullptr); }
  void read(std::string& value) {
    if (!(words_ >> value)) throw std::invalid_argument("an argument is missing");
  }
  void read(Space& value) { value = static_cast<Space>(take<std::int32_t>()); }
  void read(Phase& p) { read_all(p.row, p.column); }
  void read(Part& p) {
    read(p.size);
    if (p.size < 0 || p.size > kMostInputs) throw std::invalid_argument("winograd: too many inputs of a part");
    for (std::int32_t i = 0; i < p.size; ++i) read(p.input[i]);
    for (std::int32_t i = 0; i < p.size; ++i)
      for (std::int32_t j = 0; j < p.size; ++j) read(p.factor[i][j]);
  }
  void read(Span& s) { read_all(s.first, s.end, s.step); }
  void read(Hole& h) { read_all(h.channel, h.rows, h.columns); }
  void read(Filtering& f) {
    read_all(f.cell, f.rows, f.columns, f.row_components, f.column_components, f.step_y, f.step_x, f.pad_y, f.pad_x,
             f.channels, f.holes, f.band, f.chunk, f.stride, f.bias, f.low, f.high);
  }
  void read(std::optional<Planes>& value) {
    if (!take<bool>()) return;
    Planes p{};
    read_all(p.space, p.base, p.stride, p.before, p.pitch, p.channels, p.height, p.width);
    if (p.space == Space::arena) p.base += (planes_ == moves_.which ? moves_.up : 0) - moves_.down;
    ++planes_;
    value = p;
  }
  void read(Planes& p) { p = take<std::optional<Planes>>().value(); }
  void read(Tile& t) { read_all(t.lanes, t.vectors, t.rows, t.columns, t.joined, t.rest, t.passes, t.runs_outer); }
  void read(Pool& p) {
    p.from = take<Planes>();
    p.to = take<Planes>();
    p.kind = take<bool>() ? PoolKind::max : PoolKind::average;
    read_all(p.kernel_y, p.kernel_x, p.step_y, p.step_x, p.pad_y, p.pad_x, p.count_padding);
  }
  void read(FilterData& data) {
    const auto runs = take<std::vector<std::int64_t>>();
    const auto narrow = [&](std::size_t i) { return static_cast<std::int32_t>(runs.at(i)); };
    for (std::size_t i = 0; i < runs.size(); i += 5)
      data.runs.push_back({runs.at(i), runs.at(i + 1), narrow(i + 2), narrow(i + 3), narrow(i + 4)});
    read_all(data.offsets, data.weights, data.bias, data.rows, data.low, data.high, data.sets);
  }
  // Of numbers an array; of anything else a list.
  template <class T>
  void read(std::vector<T>& values) {
    values.resize(static_cast<std::size_t>(take<std::int64_t>()));
    if constexpr (std::is_arithmetic_v<T>) {
      bytes_.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(T)));
    } else {
      for (T& value : values) read(value);
    }
  }

  std::istringstream words_;
  std::istream& bytes_;
  Moves moves_;
  int planes_ = 0;
};

// How a method's argument is taken, and given to it.
template <class T>
struct Argument {
  using Type = std::decay_t<T>;
  static const Type& pass(const Type& value) { return value; }
};
template <>
struct Argument<const Planes*> {
  using Type = std::optional<Planes>;
  static const Planes* pass(const Type& value) { return value ? &*value : nullptr; }
};

template <class... A>
auto method(void (Program::*m)(A...)) {
  return [m](Program& program, Decoder& decoder) {
    const std::tuple<typename Argument<A>::Type...> taken{decoder.take<typename Argument<A>::Type>()...};
    std::apply([&](const auto&... values) { (program.*m)(Argument<A>::pass(values)...); }, taken);
  };
}

using Method = std::function<void(Program&, Decoder&)>;

const std::map<std::string, Method>& methods() {
  static const std::map<std::string, Method> all = {
      {"pixel_conv", method(&Program::pixel_conv)}, {"panel_conv", method(&Program::panel_conv)},
      {"channel_conv", method(&Program::channel_conv)}, {"winograd_conv", method(&Program::winograd_conv)},
      {"stage", method(&Program::stage)},           {"rows_conv", method(&Program::rows_conv)},
      {"pool", method(&Program::pool)},
      {"add", method(&Program::add)},               {"function", method(&Program::function)},
  };
  return all;
}

// A step as its message came.
struct Message {
  std::string method, line, bytes;
};

// A program with all that it takes to build it again, elsewhere.
class Recorded {
 public:
  explicit Recorded(Decoder& d)
      : isa_(d.take<std::string>()),
        threads_(d.take<int>()),
        arena_(d.take<std::int64_t>()),
        input_(d.take<std::int64_t>()),
        output_(d.take<std::int64_t>()),
        scratch_(d.take<std::int64_t>()),
        program_(build({}, threads_, arena_)) {}

  void append(const Message& message) {
    apply(*program_, message, {});
    steps_.push_back(message);
  }

  std::vector<float> run(const std::vector<float>& images) {
    const auto result = compute(*program_, images);
    if (!same(result, compute(*program_, images))) throw std::logic_error("a second run gave other bits");
    if (!same(result, compute(*build(steps_, threads_ % 2 + 1, arena_), images)))
      throw std::logic_error("another number of threads gave other bits");
#if PRUNEMAP_ADDRESS_SANITIZER
    if (!same(result, compute(*tight(), images))) throw std::logic_error("a tight arena gave other bits");
    for (const Message& step : steps_) probe(step, images);
#endif
    return result;
  }

  Program& program() { return *program_; }

 private:
  using Steps = std::vector<Message>;

  static void apply(Program& program, const Message& message, const Moves& moves) {
    std::istringstream bytes(message.bytes);
    Decoder decoder(message.line, bytes, moves);
    methods().at(message.method)(program, decoder);
  }

  std::unique_ptr<Program> build(const Steps& steps, int threads, std::int64_t arena, const Moves& moves = {}) const {
    auto program = std::make_unique<Program>(isa_, threads, arena, input_, output_, scratch_);
    for (const Message& message : steps) apply(*program, message, moves);
    return program;
  }

  bool fits(const Steps& steps, std::int64_t arena, const Moves& moves) const try {
    return build(steps, 1, arena, moves) != nullptr;
  } catch (const std::invalid_argument&) {
    return false;
  }

  // The program in the smallest arena that the checks accept, both at its beginning and at its end.
  std::unique_ptr<Program> tight() const {
    const std::int64_t down =
        -least(-arena_, 0, [&](std::int64_t move) { return fits(steps_, arena_ + move, {-move, 0, -1}); });
    const Moves moves{down, 0, -1};
    return build(steps_, 1, least(0, arena_ - down, [&](std::int64_t size) { return fits(steps_, size, moves); }), moves);
  }

  // Runs a step alone, each of its planes in turn behind all others and at the very end.
  void probe(const Message& step, const std::vector<float>& images) const {
    for (int which = 0; which < 3; ++which) {
      const Moves moves{0, arena_, which};
      if (!fits({step}, 2 * arena_, moves) || fits({step}, arena_, moves)) continue;
      const auto enough = [&](std::int64_t size) { return fits({step}, size, moves); };
      compute(*build({step}, 1, least(arena_, 2 * arena_, enough), moves), images);
    }
  }

  // The least number in (low, high] for which `good` holds, given that it holds for `high` and stays so once it does.
  template <class Good>
  static std::int64_t least(std::int64_t low, std::int64_t high, const Good& good) {
    while (high - low > 1) {
      const std::int64_t middle = low + (high - low) / 2;
      (good(middle) ? high : low) = middle;
    }
    return high;
  }

  static std::vector<float> compute(Program& program, const std::vector<float>& input) {
    const std::int64_t images = program.images(static_cast<std::int64_t>(input.size()));
    std::vector<float> output(static_cast<std::size_t>(images * program.output_size()));
    program.run(input.data(), output.data(), images);
    return output;
  }

  static bool same(const std::vector<float>& a, const std::vector<float>& b) {
    return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  }

  std::string isa_;
  int threads_;
  std::int64_t arena_, input_, output_, scratch_;
  Steps steps_;
  std::unique_ptr<Program> program_;
};

// Answers one message after the other.
class Server {
 public:
  // False when there are no more.
  bool answer() {
    std::string line;
    if (!std::getline(std::cin, line)) return false;
    try {
      handle(line);
    } catch (const std::out_of_range& error) {
      refuse("IndexError", error);
    } catch (const std::logic_error& error) {
      refuse(dynamic_cast<const std::invalid_argument*>(&error) ? "ValueError" : "AssertionError", error);
    } catch (const std::bad_alloc& error) {
      refuse("MemoryError", error);
    }
    std::cout.flush();
    return true;
  }

 private:
  static void refuse(const char* kind, const std::exception& error) {
    std::cout << "error " << kind << ' ' << error.what() << '\n';
  }

  template <class Words>
  static void say(const Words& words) {
    std::cout << "ok";
    for (const auto& word : words) std::cout << ' ' << word;
    std::cout << '\n';
  }

  template <class T>
  static void send(const std::vector<T>& values) {
    std::cout << "ok " << values.size() << '\n';
    std::cout.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(T)));
  }

  // The line ends with the bytes of the arrays that follow it, so that they are read whatever becomes of the message.
  void handle(const std::string& line) {
    std::string bytes(std::stoull(line.substr(line.rfind(' ') + 1)), '\0');
    std::cin.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    std::istringstream stream(bytes);
    Decoder d(line, stream);
    const auto what = d.take<std::string>();
    if (what == "built") return say(built_isas());
    if (what == "supported") return say(supported_isas());
    if (what == "functions") return say(function_names());
    if (what == "families") return say(families(d.take<std::string>()));
    const auto id = d.take<int>();
    if (what == "program") {
      programs_[id] = std::make_unique<Recorded>(d);
      return say(std::vector<int>{});
    }
    Recorded& recorded = *programs_.at(id);
    if (what == "run") return send(recorded.run(d.take<std::vector<float>>()));
    if (what == "time") return send(time(recorded.program(), d));
    if (what == "drop") {
      programs_.erase(id);
    } else {
      const auto begin = line.find(' ', line.find(' ') + 1);
      recorded.append({what, line.substr(begin), bytes});
    }
    say(std::vector<int>{});
  }

  static std::vector<double> time(Program& program, Decoder& d) {
    const auto input = d.take<std::vector<float>>();
    const auto repeats = d.take<std::int64_t>();
    const auto steps = d.take<std::vector<std::int64_t>>();
    const std::vector<std::size_t> chosen(steps.begin(), steps.end());
    program.check_timing(static_cast<std::int64_t>(input.size()), repeats, chosen.size());
    std::vector<float> output(static_cast<std::size_t>(program.output_size()));
    return chosen.empty() ? program.time(input.data(), output.data(), repeats)
                          : program.time_steps(input.data(), output.data(), repeats, chosen);
  }

  // For each family: lanes, the most vectors of every size, the most pixels of every count of vectors.
  static std::vector<std::int32_t> families(const std::string& isa) {
    const KernelTable& table = find_table(isa);
    std::vector<std::int32_t> all;
    for (int i = 0; i < table.families; ++i) {
      all.push_back(table.pixel[i].lanes);
      for (const std::int32_t most : table.pixel[i].max_vectors) all.push_back(most);
      for (const std::int32_t most : table.pixel[i].max_rest) all.push_back(most);
      for (const std::int32_t most : table.channel[i].max_pixels) all.push_back(most);
    }
    return all;
  }

  std::map<int, std::unique_ptr<Recorded>> programs_;
};

}  // namespace

int main() {
  std::ios::sync_with_stdio(false);
  Server server;
  while (server.answer()) {
  }
}
