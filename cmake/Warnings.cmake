# Warnings for our own targets. OpenVINO's and pybind11's headers come in as SYSTEM includes.
function(ovfast_warnings target)
    target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow
                                             -Wno-missing-field-initializers)
endfunction()
