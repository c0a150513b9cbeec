#include "runtime/model_writer.hpp"

#include <array>
#include <cstring>
#include <openvino/op/constant.hpp>
#include <openvino/pass/serialize.hpp>
#include <optional>
#include <ostream>
#include <sstream>
#include <streambuf>
#include <string>
#include <unordered_set>

#include "kernels/packed_weights.hpp"
#include "runtime/file_sink.hpp"

namespace ovfast {
namespace {

constexpr size_t kAlignment = 64;

std::optional<kernels::PackedWeights> find_packed(const char* data, size_t bytes) {
    constexpr std::array<char, 8> magic{"OVFPACK"};
    for (size_t at = 0; at < kAlignment && at + magic.size() <= bytes; ++at) {
        if (std::memcmp(data + at, magic.data(), magic.size()) != 0) continue;
        try {
            return kernels::PackedWeights::view(data, bytes);
        } catch (const std::invalid_argument&) {
            return std::nullopt;  // bytes that happen to look like it
        }
    }
    return std::nullopt;
}

/// Passes on what the serializer writes: one write for each constant, none for one whose bytes it
/// wrote before. Lengths never change, so the offsets in the xml hold.
class AligningBuffer : public std::streambuf {
public:
    AligningBuffer(FileSink& sink, const Passed& passed) : sink_(sink), passed_(passed) {}

    const std::vector<PackedSegment>& segments() const { return segments_; }

protected:
    std::streamsize xsputn(const char* data, std::streamsize count) override {
        const std::streamsize written = put(data, count);
        if (passed_) passed_(data, static_cast<size_t>(count));
        return written;
    }

    std::streamsize put(const char* data, std::streamsize count) {
        const auto bytes = static_cast<size_t>(count);
        const auto packed = find_packed(data, bytes);
        if (!packed) return sink_.sputn(data, count);
        const char* header = reinterpret_cast<const char*>(packed->header());
        const size_t lead = (kAlignment - sink_.position() % kAlignment) % kAlignment;
        const size_t size = packed->bytes();
        if (lead + size > bytes) {
            const auto before = static_cast<uint64_t>(header - data);
            segments_.push_back({sink_.position() + before, size});
            return sink_.sputn(data, count);
        }
        segments_.push_back({sink_.position() + lead, size});
        const std::string zeros(bytes - size, '\0');
        sink_.sputn(zeros.data(), static_cast<std::streamsize>(lead));
        sink_.sputn(header, static_cast<std::streamsize>(size));
        sink_.sputn(zeros.data(), static_cast<std::streamsize>(bytes - lead - size));
        return count;
    }

    int_type overflow(int_type character) override {
        return sink_.sputc(traits_type::to_char_type(character));
    }

    pos_type seekoff(off_type offset, std::ios_base::seekdir direction,
                     std::ios_base::openmode mode) override {
        return sink_.pubseekoff(offset, direction, mode);
    }

private:
    FileSink& sink_;
    const Passed& passed_;
    std::vector<PackedSegment> segments_;
};

}  // namespace

std::vector<PackedSegment> write_model(const std::shared_ptr<ov::Model>& model,
                                       const std::filesystem::path& out_dir,
                                       const std::function<void(uint64_t)>& written,
                                       const Passed& passed) {
    FileSink bin_sink(out_dir / "openvino_model.bin", written);
    FileSink xml_sink(out_dir / "openvino_model.xml", {});
    AligningBuffer aligning(bin_sink, passed);
    std::ostream bin(&aligning);
    std::ostringstream xml;
    // Makes the stream pass on what the sink throws, instead of just noting a failure.
    bin.exceptions(std::ios::badbit | std::ios::failbit);
    ov::pass::Serialize(xml, bin).run_on_model(model);
    bin_sink.close();
    const std::string text = xml.str();
    xml_sink.sputn(text.data(), static_cast<std::streamsize>(text.size()));
    xml_sink.close();
    return aligning.segments();
}

uint64_t constant_bytes(const ov::Model& model) {
    uint64_t bytes = 0;
    std::unordered_set<const void*> seen;
    for (const auto& node : model.get_ops()) {
        const auto constant = ov::as_type_ptr<ov::op::v0::Constant>(node);
        if (constant && seen.insert(constant->get_data_ptr()).second) {
            bytes += constant->get_byte_size();
        }
    }
    return bytes;
}

}  // namespace ovfast
