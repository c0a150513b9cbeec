#pragma once

#include <stdexcept>

#include "ovfast/export.hpp"

namespace ovfast {

// Wrong arguments and options throw std::invalid_argument, which Python sees as ValueError.
// What depends on files, models and machines throws one of these.

/// Base of ovfast's own errors.
struct OVFAST_API Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// A file or directory that cannot be used as a model: missing, truncated, corrupted, unsupported.
struct OVFAST_API ModelError : Error {
    using Error::Error;
};

/// An encrypted model that cannot be opened: a wrong or missing key, damage, files of another
/// model. Names the file, never what is in it.
struct OVFAST_API DecryptionError : ModelError {
    using ModelError::ModelError;
};

/// A request that can never fit: longer than the model's context or than the KV cache.
struct OVFAST_API CapacityError : Error {
    using Error::Error;
};

}  // namespace ovfast
