#include <iostream>
#include <memory>
#include <vector>

#include "apps/bench/app_ab.hpp"
#include "apps/bench/app_checks.hpp"
#include "apps/bench/app_run.hpp"
#include "apps/bench/text.hpp"

namespace ovfast::bench {
namespace {

Options options_of_b(int argc, char** argv, const std::string& changes) {
    const std::vector<std::string> arguments = ab_arguments(argc, argv, changes);
    std::vector<const char*> pointers;
    for (const std::string& argument : arguments) pointers.push_back(argument.c_str());
    Options options = parse_options(static_cast<int>(pointers.size()), pointers.data());
    check_rules(options);
    check_keys(options);
    check_ab(options);
    return options;
}

std::unique_ptr<Report> make_report(const Options& options) {
    if (options.report_type.empty()) return nullptr;
    auto report =
        std::make_unique<Report>(options.report_type, options.report_folder, options.json_stats);
    for (const auto& [name, value] : options.command_line) {
        report->add(Report::Section::command_line, name, name, value);
    }
    return report;
}

void write_error(Report* report, const std::string& message) {
    if (report == nullptr) return;
    report->add_error(message);
    try {
        report->write();
    } catch (const std::exception& error) {
        log_error(error.what());
    }
}

}  // namespace

int app_main(int argc, char** argv) {
    Steps steps;
    std::unique_ptr<Report> report;
    try {
        steps.next();
        log_info("Parsing input parameters");
        Options options = parse_options(argc, argv);
        if (options.help) {
            std::cout << usage() << "\nAvailable target devices:   "
                      << join(ov::Core().get_available_devices(), "  ") << std::endl;
            return exit_success;
        }
        check_outputs(options);
        report = make_report(options);
        check_rules(options);
        check_keys(options);
        if (!options.ab.empty()) {
            check_ab(options);
            return run_ab(options, options_of_b(argc, argv, options.ab), steps);
        }
        if (lower_extension(options.model) == ".blob") log_info("Model is compiled");
        return run_app(options, steps, report.get());
    } catch (const UsageError& error) {
        std::cerr << "usage: ovfast-bench [options] -m PATH_TO_MODEL (-h lists the options)\n"
                  << "ovfast-bench: error: " << error.what() << std::endl;
        if (!report) report = make_report(report_options(argc, argv));
        write_error(report.get(), error.what());
        return exit_usage;
    } catch (const std::exception& error) {
        log_error(error.what());
        write_error(report.get(), error.what());
        return exit_failure;
    }
}

}  // namespace ovfast::bench
