// Where values lie. A tensor need not be dense: the plugin hands out parts of a larger one (of a Split,
// for example) in place, which shows in OFFSET and PITCHES, macros that it defines for each tensor.

// Values of a tensor.
#define OVFAST_SIZE(T) ((size_t)(T##_DIMS[0] * T##_DIMS[1] * T##_DIMS[2] * T##_DIMS[3]))

// Place of the i-th value, counted with the last dimension fastest.
#define OVFAST_AT(T, i)                                                                         \
    ((size_t)(T##_OFFSET) +                                                                     \
     (i) / (T##_DIMS[1] * T##_DIMS[2] * T##_DIMS[3]) * T##_PITCHES[0] +                         \
     (i) / (T##_DIMS[2] * T##_DIMS[3]) % T##_DIMS[1] * T##_PITCHES[1] +                         \
     (i) / T##_DIMS[3] % T##_DIMS[2] * T##_PITCHES[2] + (i) % T##_DIMS[3] * T##_PITCHES[3])

// Attributes of type float arrive with six decimals: 1e-7 would be 0. Operations hand over the bits, too.
#define OVFAST_FLOAT(bits) as_float((uint)(bits))
