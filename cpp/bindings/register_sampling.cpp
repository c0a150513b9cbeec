#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/sampler.hpp"
#include "ovfast/sampling.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace ovfast::python {
namespace {

/// Option -> the Python type that it takes, for error messages.
using OptionTypes = std::map<std::string, std::string>;

/// Binds the fields of SamplingParams one by one and remembers them, so that the constructor
/// knows the same options as the attributes.
class OptionBinder {
public:
    OptionBinder(py::class_<SamplingParams>& bound, OptionTypes& types)
        : bound_(bound), types_(types) {}

    template <typename Field>
    OptionBinder& option(const char* name, Field SamplingParams::* field, const char* type,
                         const char* doc) {
        bound_.def_readwrite(name, field, doc);
        types_.emplace(name, type);
        return *this;
    }

private:
    py::class_<SamplingParams>& bound_;
    OptionTypes& types_;
};

/// Whether `value` is of the right type, but too large or too small for it.
bool out_of_range(const py::handle& value, const std::string& type) {
    const auto is_int = [](const py::handle& item) {
        return PyLong_Check(item.ptr()) != 0 && PyBool_Check(item.ptr()) == 0;
    };
    if (type == "list of int") {
        if (!py::isinstance<py::list>(value) && !py::isinstance<py::tuple>(value)) return false;
        const auto items = py::reinterpret_borrow<py::sequence>(value);
        return std::all_of(items.begin(), items.end(), is_int);
    }
    const bool takes_int = type.rfind("int", 0) == 0 || type.rfind("float", 0) == 0;
    return takes_int && is_int(value);
}

SamplingParams params_from(const py::kwargs& options, const OptionTypes& types) {
    py::object params = py::cast(SamplingParams{});
    for (const auto& [key, value] : options) {
        const auto name = py::cast<std::string>(key);
        const auto type = types.find(name);
        if (type == types.end()) {
            std::string known;
            for (const auto& item : types) known += (known.empty() ? "" : ", ") + item.first;
            throw py::type_error("SamplingParams has no option '" + name +
                                 "'; expected one of: " + known);
        }
        const auto problem = [&, &expected = type->second] {
            return name + " is " + py::cast<std::string>(py::repr(value)) + "; expected " +
                   expected;
        };
        if (py::isinstance<py::bool_>(value) && type->second != "bool") {
            throw py::type_error(problem());
        }
        try {
            py::setattr(params, key, value);
        } catch (py::error_already_set& error) {
            if (!error.matches(PyExc_TypeError)) throw;
            if (out_of_range(value, type->second)) throw py::value_error(problem());
            throw py::type_error(problem());
        }
    }
    return py::cast<SamplingParams>(params);
}

/// Shows the options that are not at their defaults.
std::string to_repr(const py::object& params, const OptionTypes& types) {
    const py::object defaults = py::cast(SamplingParams{});
    std::string text;
    for (const auto& item : types) {
        const char* name = item.first.c_str();
        const py::object value = params.attr(name);
        if (value.equal(defaults.attr(name))) continue;
        text +=
            (text.empty() ? "" : ", ") + item.first + "=" + py::cast<std::string>(py::repr(value));
    }
    return "SamplingParams(" + text + ")";
}

void register_params(py::module_& m) {
    py::class_<SamplingParams> bound(
        m, "SamplingParams",
        "How the next token is chosen and when generation ends.\n\n"
        "Every option is a keyword and an attribute. Raises TypeError for an unknown option or a "
        "value of another type; validate() looks at the values. Order of operations: repetition, "
        "frequency and presence penalty, temperature, top-k, top-p, min-p, draw.");
    auto types = std::make_shared<OptionTypes>();
    OptionBinder(bound, *types)
        .option("max_new_tokens", &SamplingParams::max_new_tokens, "int or None",
                "Tokens to generate at most; None: until the context is full. Excludes "
                "max_length.")
        .option("max_length", &SamplingParams::max_length, "int or None",
                "Prompt and generated tokens together, at most. Excludes max_new_tokens.")
        .option("min_new_tokens", &SamplingParams::min_new_tokens, "int",
                "End-of-sequence and stop tokens are not sampled before this many tokens.")
        .option("temperature", &SamplingParams::temperature, "float",
                "0 is greedy: the most probable token, the lowest id among equals. Otherwise "
                "logits are divided by it.")
        .option("top_k", &SamplingParams::top_k, "int",
                "Keep the k most probable tokens; 0 keeps all.")
        .option("top_p", &SamplingParams::top_p, "float",
                "Keep the smallest set of most probable tokens whose probabilities sum to at "
                "least this, in (0, 1].")
        .option("min_p", &SamplingParams::min_p, "float",
                "Keep tokens at least min_p times as probable as the most probable one, in "
                "[0, 1].")
        .option("repetition_penalty", &SamplingParams::repetition_penalty, "float",
                "Logits of tokens in prompt and output are divided by it when positive and "
                "multiplied when negative; > 0, 1 is off.")
        .option("presence_penalty", &SamplingParams::presence_penalty, "float",
                "Subtracted once from logits of generated tokens, in [-2, 2].")
        .option("frequency_penalty", &SamplingParams::frequency_penalty, "float",
                "Subtracted from logits for each time the token was generated, in [-2, 2].")
        .option("seed", &SamplingParams::seed, "int in [0, 2**64) or None",
                "Same seed, same random numbers. None: drawn from the system.")
        .option("stop_strings", &SamplingParams::stop_strings, "list of str",
                "Generation ends where one of these appears. Reading gives a copy: assign to "
                "change it.")
        .option("include_stop_string", &SamplingParams::include_stop_string, "bool",
                "The matched stop string is part of the text.")
        .option("stop_token_ids", &SamplingParams::stop_token_ids, "list of int",
                "Tokens that end generation, besides the model's own. Reading gives a copy: "
                "assign to change it.")
        .option("ignore_eos", &SamplingParams::ignore_eos, "bool",
                "Go on after the model's end-of-sequence tokens.")
        .option("n", &SamplingParams::n, "int", "Answers to sample for one prompt, 1 to 128.")
        .option("logprobs", &SamplingParams::logprobs, "int or None",
                "Report the log-probability of each generated token and of the k most probable "
                "ones, 0 to 20; None: no report.");
    bound.def(py::init([types](const py::kwargs& options) { return params_from(options, *types); }))
        .def("validate", &SamplingParams::validate,
             "Raises ValueError that names the option, its value and what is allowed, also for "
             "options that contradict each other.")
        .def_property_readonly("greedy", &SamplingParams::greedy, "Whether temperature is 0.")
        .def("__repr__", [types](const py::object& self) { return to_repr(self, *types); });
}

void register_logprobs(py::module_& m) {
    py::class_<TokenLogprob>(m, "TokenLogprob",
                             "A token and its log-probability, natural logarithm.")
        .def_readonly("token_id", &TokenLogprob::token_id)
        .def_readonly("logprob", &TokenLogprob::logprob,
                      "log-softmax of the model's logits before penalties and temperature; -inf "
                      "for a token that the model excludes.")
        .def("__repr__", [](const TokenLogprob& t) {
            return py::str("TokenLogprob(token_id={}, logprob={:.6g})")
                .format(t.token_id, static_cast<double>(t.logprob));
        });

    py::class_<PositionLogprobs>(m, "PositionLogprobs",
                                 "Log-probabilities at one generated position.")
        .def_readonly("chosen", &PositionLogprobs::chosen)
        .def_readonly("top", &PositionLogprobs::top,
                      "The most probable tokens, most probable first.")
        .def("__repr__", [](const PositionLogprobs& p) {
            return py::str("PositionLogprobs(chosen={!r}, top={!r})").format(p.chosen, p.top);
        });
}

using Row = py::array_t<float, py::array::c_style>;

py::tuple sample(Sampler& sampler, const Row& logits) {
    if (logits.ndim() != 1) {
        throw py::value_error("logits have " + std::to_string(logits.ndim()) +
                              " dimensions; expected 1, [vocab_size]");
    }
    const Sampler::Choice choice =
        sampler.sample(logits.data(), static_cast<size_t>(logits.size()));
    return py::make_tuple(choice.token_id, choice.logprobs);
}

}  // namespace

void register_sampling(py::module_& m) {
    register_params(m);
    register_logprobs(m);
    py::class_<Sampler>(m, "Sampler",
                        "Draws the tokens of one sequence and remembers what the penalties and the "
                        "random generator need. One sequence, one sampler, one thread.")
        .def(py::init<const SamplingParams&, const std::vector<int64_t>&,
                      const std::vector<int64_t>&, size_t>(),
             py::arg("params"), py::arg("prompt_ids"),
             py::arg("banned_before_minimum") = std::vector<int64_t>{}, py::arg("answer") = 0,
             "answer is the index among params.n answers: each draws its own random stream. "
             "banned_before_minimum are the ids that may not come while fewer than "
             "params.min_new_tokens tokens were generated. Raises ValueError for invalid params "
             "or negative ids.")
        .def("sample", &sample, py::arg("logits").noconvert(),
             "Chooses the next token from float32 logits[vocab_size] and records it.\n\n"
             "Returns (token_id, PositionLogprobs or None). Raises ModelError when the logits hold "
             "NaN, +infinity or nothing finite that is allowed.");
}

}  // namespace ovfast::python
