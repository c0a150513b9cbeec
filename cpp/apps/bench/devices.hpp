#pragma once

namespace ovfast::bench {

/// `ovfast-bench devices`: every device of OpenVINO with its properties, instruction sets, caches
/// and what limits this process. Exit codes: 0 done, 1 error, 2 wrong usage.
int devices_main(int argc, char** argv);

}  // namespace ovfast::bench
