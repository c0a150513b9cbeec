// out = silu(alpha * gate) * up, a work-item a value. Everything between loads and store is f32.
__kernel void ovfast_swiglu(__global const INPUT0_TYPE* gate, __global const INPUT1_TYPE* up,
                            __global OUTPUT0_TYPE* out) {
    const size_t i = get_global_id(0);
    const float x = OVFAST_FLOAT(ALPHA_BITS) * (float)gate[OVFAST_AT(INPUT0, i)];
    const float product = x / (1.0f + exp(-x)) * (float)up[OVFAST_AT(INPUT1, i)];
    out[OVFAST_AT(OUTPUT0, i)] = (OUTPUT0_TYPE)product;
}
