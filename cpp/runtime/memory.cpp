#include <array>
#include <fstream>
#include <limits>
#include <string>

#include "ovfast/error.hpp"
#include "ovfast/host.hpp"

namespace ovfast {
namespace {

struct Field {
    const char* name;
    uint64_t bytes = 0;
    bool found = false;
};

}  // namespace

ProcessMemory read_process_memory() {
    const char* path = "/proc/self/status";
    std::ifstream status(path);
    std::array<Field, 5> fields{
        {{"VmHWM:"}, {"VmRSS:"}, {"RssFile:"}, {"RssShmem:"}, {"RssAnon:"}}};
    std::string name;
    while (status >> name) {
        for (Field& field : fields) {
            if (name == field.name) {
                field.found = static_cast<bool>(status >> field.bytes);
                field.bytes *= 1024;  // the kernel counts in KiB, which it calls kB
            }
        }
        status.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    }
    for (const Field& field : fields) {
        if (!field.found) {
            throw Error(std::string(path) + " has no " + field.name +
                        " line; expected one, as Linux 4.5 and later write it");
        }
    }
    const auto& [peak, rss, file, shared, anonymous] = fields;
    return {peak.bytes, rss.bytes, file.bytes + shared.bytes, anonymous.bytes};
}

}  // namespace ovfast
