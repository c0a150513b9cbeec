#pragma once

namespace ovfast::bench {

/// `ovfast-bench llm`: measures a language model. Exit codes: 0 done, 1 the model, the machine or
/// a file failed, 2 wrong usage, 130 Ctrl+C (what was done is reported).
int llm_main(int argc, char** argv);

}  // namespace ovfast::bench
