# Finds OpenVINO inside the `openvino` wheel of the Python that builds us, build isolation included.
# Pass -DOVFAST_OPENVINO_DIR=<folder of OpenVINOConfig.cmake> to use another installation of the same
# version.
#
# Sets
#   OVFAST_OPENVINO_VERSION  the one version that we build against
#   OVFAST_OPENVINO_LIB_DIR  folder of libopenvino.so.<version>: the wheel has no unversioned symbolic
#                            links, so binaries in the build tree need it as their rpath
#   OVFAST_OPENVINO_LIBRARY  file name of that library

set(OVFAST_OPENVINO_VERSION 2026.4.1)

if(OVFAST_PYTHON)
    find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)
else()
    find_package(Python 3.10 REQUIRED COMPONENTS Interpreter)
endif()

if(OVFAST_OPENVINO_DIR)
    set(openvino_dir "${OVFAST_OPENVINO_DIR}")
else()
    execute_process(
        COMMAND "${Python_EXECUTABLE}" -c
                "import importlib.util as u; print(u.find_spec('openvino').submodule_search_locations[0])"
        OUTPUT_VARIABLE openvino_package
        OUTPUT_STRIP_TRAILING_WHITESPACE
        ERROR_QUIET
        RESULT_VARIABLE not_found)
    if(not_found)
        message(FATAL_ERROR
            "The Python package 'openvino' is missing from ${Python_EXECUTABLE}. Install it "
            "(pip install openvino==${OVFAST_OPENVINO_VERSION}) or pass -DOVFAST_OPENVINO_DIR=...")
    endif()
    set(openvino_dir "${openvino_package}/cmake")
endif()

# A build directory outlives the isolated environment that it was configured in: what CMake remembers
# of OpenVINO and TBB must not decide.
foreach(package IN ITEMS OpenVINO TBB)
    unset(${package}_DIR CACHE)
    set(${package}_DIR "${openvino_dir}")
endforeach()
find_package(OpenVINO ${OVFAST_OPENVINO_VERSION} EXACT REQUIRED CONFIG COMPONENTS Runtime)
find_package(TBB REQUIRED CONFIG)  # the one that OpenVINO ships: its CPU plugin runs on it

get_target_property(openvino_library openvino::runtime IMPORTED_LOCATION_RELEASE)
get_filename_component(OVFAST_OPENVINO_LIB_DIR "${openvino_library}" DIRECTORY)
get_filename_component(OVFAST_OPENVINO_LIBRARY "${openvino_library}" NAME)
