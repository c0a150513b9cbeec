#include "runtime/pack_manifest.hpp"

#include <sys/mman.h>
#include <tbb/parallel_for.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <sstream>
#include <stdexcept>

#include "kernels/packed_weights.hpp"
#include "ovfast/error.hpp"
#include "ovfast/version.hpp"
#include "runtime/file_sink.hpp"
#include "runtime/mapped_file.hpp"

namespace ovfast {
namespace {

namespace fs = std::filesystem;

constexpr const char* kXml = "openvino_model.xml";
constexpr const char* kBin = "openvino_model.bin";
constexpr const char* kFirstLine = "ovfast packed model 1";
constexpr size_t kPiece = 4 << 20;  // pages that one thread reads at a time

struct Range {
    const std::byte* data;
    size_t bytes;
};

/// Of ranges that are read piece by piece on all threads. With `once`, pages are given back as soon
/// as they were read, or hashing a model would show as its memory.
uint64_t checksum(const std::vector<Range>& ranges, bool once = false) {
    std::vector<Range> pieces;
    for (const Range& range : ranges) {
        for (size_t at = 0; at < range.bytes; at += kPiece) {
            pieces.push_back({range.data + at, std::min(kPiece, range.bytes - at)});
        }
    }
    std::vector<uint64_t> sums(pieces.size() + 1, ranges.size());
    tbb::parallel_for(size_t{0}, pieces.size(), [&](size_t i) {
        sums[i] = kernels::checksum(pieces[i].data, pieces[i].bytes);
        if (once) ::madvise(const_cast<std::byte*>(pieces[i].data), pieces[i].bytes, MADV_DONTNEED);
    });
    return kernels::checksum(sums.data(), sums.size() * sizeof sums[0]);
}

/// What lies between the packed weights of a .bin. Throws when they are not within it, in order.
std::vector<Range> rest_of(const FileBytes& bin, const std::vector<PackedSegment>& segments) {
    std::vector<Range> rest;
    uint64_t at = 0;
    for (const PackedSegment& segment : segments) {
        if (segment.offset < at || segment.offset > bin.size ||
            segment.bytes > bin.size - segment.offset) {
            throw ModelError("packed weights at " + std::to_string(segment.offset) +
                             " lie outside of the weights file");
        }
        rest.push_back({bin.data + at, segment.offset - at});
        at = segment.offset + segment.bytes;
    }
    rest.push_back({bin.data + at, bin.size - at});
    return rest;
}

std::string hex(uint64_t value) {
    char text[17];
    std::snprintf(text, sizeof text, "%016" PRIx64, value);
    return text;
}

/// Names come from models and may hold anything; a field ends at a tab, an entry at a line's end.
std::string field(std::string text) {
    for (char& c : text) {
        if (static_cast<unsigned char>(c) < ' ') c = ' ';
    }
    return text;
}

std::vector<std::string> split(const std::string& line, char separator) {
    std::vector<std::string> fields;
    std::istringstream stream(line);
    for (std::string item; std::getline(stream, item, separator);) fields.push_back(item);
    if (!line.empty() && line.back() == separator) fields.emplace_back();
    return fields;
}

uint64_t number(const std::string& text, int base = 10) {
    size_t used = 0;
    const uint64_t value = std::stoull(text, &used, base);
    if (used != text.size()) throw std::invalid_argument("'" + text + "' is no number");
    return value;
}

void parse_entry(PackManifest& manifest, const std::vector<std::string>& fields) {
    const std::string& key = fields.at(0);
    if (key == "layout") {
        if (number(fields.at(1)) != kernels::kLayoutVersion) {
            throw ModelError("it was packed in layout version " + fields.at(1) +
                             ", this ovfast reads " + std::to_string(kernels::kLayoutVersion));
        }
    } else if (key == "tool") {
        manifest.tool = fields.at(1);
    } else if (key == "source") {
        manifest.source = fields.at(1);
        manifest.source_bytes = number(fields.at(2));
    } else if (key == "xml") {
        manifest.xml_bytes = number(fields.at(1));
        manifest.xml_checksum = number(fields.at(2), 16);
    } else if (key == "bin") {
        manifest.bin_bytes = number(fields.at(1));
        manifest.rest_checksum = number(fields.at(2), 16);
    } else if (key == "packed") {
        manifest.segments.push_back({number(fields.at(1)), number(fields.at(2))});
    } else if (key == "layer") {
        manifest.layers.push_back({fields.at(6), fields.at(1), fields.at(5), fields.at(4),
                                   number(fields.at(2)), number(fields.at(3))});
    } else if (key == "note") {
        manifest.notes.push_back(fields.at(1));
    } else {
        throw std::invalid_argument("unknown entry '" + key + "'");
    }
}

[[noreturn]] void damaged(const fs::path& file, const std::string& why) {
    throw ModelError("'" + file.string() + "' is damaged: " + why +
                     ". Pack or export the model again.");
}

}  // namespace

void PackManifest::describe(const fs::path& directory) {
    tool = version();
    const auto files = ModelFiles::folder(directory);
    const FileBytes xml = files->read(kXml);
    const FileBytes bin = files->read(kBin);
    xml_bytes = xml.size;
    xml_checksum = checksum({{xml.data, xml.size}});
    bin_bytes = bin.size;
    rest_checksum = checksum(rest_of(bin, segments));
}

void PackManifest::write(const fs::path& directory) const {
    std::ostringstream text;
    text << kFirstLine << "\nlayout\t" << kernels::kLayoutVersion << "\ntool\t" << field(tool)
         << "\nsource\t" << source << '\t' << source_bytes << "\nxml\t" << xml_bytes << '\t'
         << hex(xml_checksum) << "\nbin\t" << bin_bytes << '\t' << hex(rest_checksum) << '\n';
    for (const PackedSegment& segment : segments) {
        text << "packed\t" << segment.offset << '\t' << segment.bytes << '\n';
    }
    for (const PackedLayer& layer : layers) {
        text << "layer\t" << layer.operation << '\t' << layer.source_bytes << '\t'
             << layer.packed_bytes << '\t' << layer.format << '\t' << field(layer.reason) << '\t'
             << field(layer.name) << '\n';
    }
    for (const std::string& note : notes) text << "note\t" << field(note) << '\n';
    std::string whole = text.str();
    whole += "checksum\t" + hex(kernels::checksum(whole.data(), whole.size())) + "\n";
    FileSink sink(directory / kName, {});
    sink.sputn(whole.data(), static_cast<std::streamsize>(whole.size()));
    sink.close();
}

PackManifest PackManifest::read(const ModelFiles& files) {
    const fs::path file = files.path() / kName;
    const std::string whole(files.read(kName).text());
    const size_t last = whole.rfind("checksum\t");
    if (whole.compare(0, std::string(kFirstLine).size() + 1, std::string(kFirstLine) + "\n") != 0 ||
        last == std::string::npos) {
        damaged(file, "expected '" + std::string(kFirstLine) + "' and a checksum at the end");
    }
    PackManifest manifest;
    try {
        if (whole.substr(last) !=
            "checksum\t" + hex(kernels::checksum(whole.data(), last)) + "\n") {
            damaged(file, "its checksum is another");
        }
        std::istringstream lines(whole.substr(0, last));
        std::string line;
        std::getline(lines, line);
        while (std::getline(lines, line)) parse_entry(manifest, split(line, '\t'));
    } catch (const std::logic_error& error) {  // of at(), stoull() and ours
        damaged(file, error.what());
    } catch (const ModelError& error) {
        const std::string why = error.what();
        if (why.find(file.string()) != std::string::npos) throw;
        throw ModelError("'" + files.path().string() + "' cannot be used: " + why +
                         ". Pack or export the model again.");
    }
    return manifest;
}

void PackManifest::verify_frame(const ModelFiles& files) const {
    const fs::path xml_file = files.path() / kXml;
    const fs::path bin_file = files.path() / kBin;
    const FileBytes xml = files.read(kXml);
    const FileBytes bin = files.read(kBin);
    const auto check_length = [](const fs::path& file, uint64_t got, uint64_t expected) {
        if (got != expected) {
            damaged(file,
                    "expected " + std::to_string(expected) + " bytes, got " + std::to_string(got));
        }
    };
    check_length(xml_file, xml.size, xml_bytes);
    check_length(bin_file, bin.size, bin_bytes);
    if (checksum({{xml.data, xml.size}}) != xml_checksum) {
        damaged(xml_file, "its checksum is another");
    }
    if (checksum(rest_of(bin, segments)) != rest_checksum) {
        damaged(bin_file, "the checksum of its constants is another");
    }
}

void PackManifest::verify_weights(const ModelFiles& files) const {
    const fs::path file = files.path() / kBin;
    const FileBytes bin = files.read(kBin);
    rest_of(bin, segments);
    tbb::parallel_for(size_t{0}, segments.size(), [&](size_t i) {
        try {
            kernels::PackedWeights::view(bin.data + segments[i].offset, segments[i].bytes).verify();
        } catch (const std::invalid_argument& error) {
            damaged(file, error.what());
        }
    });
}

bool PackManifest::packs() const {
    return std::any_of(layers.begin(), layers.end(),
                       [](const PackedLayer& layer) { return !layer.operation.empty(); });
}

PackReport PackManifest::report(const fs::path& directory) const {
    PackReport report;
    report.packed = packs();
    report.directory = directory;
    report.source_bytes = source_bytes;
    report.packed_bytes = bin_bytes;
    report.layers = layers;
    report.notes = notes;
    return report;
}

std::string content_key(const fs::path& model_dir) {
    const MappedFile xml(model_dir / "openvino_model.xml");
    const MappedFile bin(model_dir / "openvino_model.bin");
    return hex(checksum({{xml.data(), xml.size()}, {bin.data(), bin.size()}}, true));
}

}  // namespace ovfast
