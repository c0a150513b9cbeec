// An OpenCL layer (OPENCL_LAYERS=layer.so) that presents Intel's CPU runtime as an Intel GPU, so that
// OpenVINO's own GPU plugin runs where there is no GPU. For tests of correctness only: speed, races,
// registers, local memory and the GPU's compiler are not emulated.
//
// OVFAST_EMULATED_SUBGROUPS=1  leaves the extension cl_intel_subgroups visible. This runtime forms
//                              sub-groups along local dimension 0 only, which is right for our kernels
//                              and silently wrong for the plugin's optimised ones.
// OVFAST_EMULATED_BUILDS=DIR   writes the source of every program that is built to DIR/<pid>-<number>.cl,
//                              and its build log to the same name with .log if building fails.
#define CL_TARGET_OPENCL_VERSION 300
#include <CL/cl.h>
#include <CL/cl_ext.h>
#include <CL/cl_layer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Loaders newer than the header pass more entries than it declares.
enum { kMaxEntries = 512 };
static const struct _cl_icd_dispatch *next_;
static union {
    struct _cl_icd_dispatch dispatch;
    void *entries[kMaxEntries];
} own_;

static cl_int answer(const void *value, size_t bytes, size_t size, void *out, size_t *needed) {
    if (needed) *needed = bytes;
    if (!out) return CL_SUCCESS;
    if (size < bytes) return CL_INVALID_VALUE;
    memcpy(out, value, bytes);
    return CL_SUCCESS;
}

static void blank_out(char *list, const char *word) {
    const size_t length = strlen(word);
    for (char *at = list; (at = strstr(at, word)) != NULL; at += length) {
        const int begins = at == list || at[-1] == ' ';
        const int ends = at[length] == ' ' || at[length] == '\0';
        if (begins && ends) memset(at, ' ', length);
    }
}

static cl_int extensions(cl_device_id device, size_t size, void *out, size_t *needed) {
    size_t bytes = 0;
    cl_int error = next_->clGetDeviceInfo(device, CL_DEVICE_EXTENSIONS, 0, NULL, &bytes);
    if (error != CL_SUCCESS) return error;
    char *list = malloc(bytes);
    if (!list) return CL_OUT_OF_HOST_MEMORY;
    error = next_->clGetDeviceInfo(device, CL_DEVICE_EXTENSIONS, bytes, list, NULL);
    const char *shown = getenv("OVFAST_EMULATED_SUBGROUPS");
    if (error == CL_SUCCESS && !(shown && strcmp(shown, "1") == 0)) {
        blank_out(list, "cl_intel_subgroups");
    }
    if (error == CL_SUCCESS) error = answer(list, bytes, size, out, needed);
    free(list);
    return error;
}

static cl_int CL_API_CALL get_device_info(cl_device_id device, cl_device_info what, size_t size,
                                          void *out, size_t *needed) {
    const cl_device_info kIpVersionIntel = 0x4250;
    const cl_device_type gpu = CL_DEVICE_TYPE_GPU;
    const cl_uint xe_lp = 0x03000000;  // 12.0.0; the plugin drops a device of unknown version
    if (what == CL_DEVICE_TYPE) return answer(&gpu, sizeof gpu, size, out, needed);
    if (what == kIpVersionIntel) return answer(&xe_lp, sizeof xe_lp, size, out, needed);
    if (what == CL_DEVICE_EXTENSIONS) return extensions(device, size, out, needed);
    return next_->clGetDeviceInfo(device, what, size, out, needed);
}

static cl_int CL_API_CALL get_device_ids(cl_platform_id platform, cl_device_type type, cl_uint count,
                                         cl_device_id *devices, cl_uint *found) {
    if (type == CL_DEVICE_TYPE_GPU) type = CL_DEVICE_TYPE_ALL;
    return next_->clGetDeviceIDs(platform, type, count, devices, found);
}

// The plugin leaves out the answer's size where its wrapper counts on it; this runtime then says nothing.
static cl_int CL_API_CALL get_kernel_info(cl_kernel kernel, cl_kernel_info what, size_t size, void *out,
                                          size_t *needed) {
    size_t bytes = 0;
    const cl_int error = next_->clGetKernelInfo(kernel, what, size, out, &bytes);
    if (needed) *needed = bytes;
    return error;
}

static FILE *open_note(int number, const char *suffix) {
    const char *directory = getenv("OVFAST_EMULATED_BUILDS");
    char name[4096];
    if (!directory) return NULL;
    snprintf(name, sizeof name, "%s/%ld-%05d.%s", directory, (long)getpid(), number, suffix);
    FILE *file = fopen(name, "w");
    if (!file) perror(name);
    return file;
}

static int builds_;

static cl_int CL_API_CALL build_program(cl_program program, cl_uint count, const cl_device_id *devices,
                                        const char *options,
                                        void(CL_CALLBACK *done)(cl_program, void *), void *user_data) {
    const int number = __sync_fetch_and_add(&builds_, 1);
    size_t bytes = 0;
    char *source = NULL;
    if (next_->clGetProgramInfo(program, CL_PROGRAM_SOURCE, 0, NULL, &bytes) == CL_SUCCESS) {
        source = malloc(bytes + 1);
    }
    if (source &&
        next_->clGetProgramInfo(program, CL_PROGRAM_SOURCE, bytes, source, NULL) == CL_SUCCESS) {
        FILE *file = open_note(number, "cl");
        if (file) {
            source[bytes] = '\0';
            fprintf(file, "// options: %s\n%s\n", options ? options : "", source);
            fclose(file);
        }
    }
    free(source);
    const cl_int error = next_->clBuildProgram(program, count, devices, options, done, user_data);
    if (error != CL_SUCCESS && count > 0) {
        // The release build of the plugin keeps the log to itself.
        static char log[1 << 16];
        if (next_->clGetProgramBuildInfo(program, devices[0], CL_PROGRAM_BUILD_LOG, sizeof log, log,
                                         NULL) == CL_SUCCESS) {
            FILE *file = open_note(number, "log");
            if (file) {
                fprintf(file, "%s\n", log);
                fclose(file);
            }
        }
    }
    return error;
}

// The plugin's in-order assumptions do not hold on this runtime: without waiting, the second token of a
// stateful model reads a KV cache that is still being written.
static cl_int CL_API_CALL enqueue_kernel(cl_command_queue queue, cl_kernel kernel, cl_uint dimensions,
                                         const size_t *offset, const size_t *global,
                                         const size_t *local, cl_uint waits, const cl_event *wait_for,
                                         cl_event *event) {
    const cl_int error = next_->clEnqueueNDRangeKernel(queue, kernel, dimensions, offset, global, local,
                                                       waits, wait_for, event);
    return error == CL_SUCCESS ? next_->clFinish(queue) : error;
}

// This runtime refuses to retain a program whose last handle was released while its kernels live on,
// which the plugin does when it clones a kernel: programs live as long as the process.
static cl_int CL_API_CALL release_program(cl_program program) {
    (void)program;
    return CL_SUCCESS;
}

CL_API_ENTRY cl_int CL_API_CALL clGetLayerInfo(cl_layer_info what, size_t size, void *out,
                                               size_t *needed) {
    if (what != CL_LAYER_API_VERSION) return CL_INVALID_VALUE;
    const cl_layer_api_version version = CL_LAYER_API_VERSION_100;
    return answer(&version, sizeof version, size, out, needed);
}

CL_API_ENTRY cl_int CL_API_CALL clInitLayer(cl_uint entries, const struct _cl_icd_dispatch *target,
                                            cl_uint *own_entries,
                                            const struct _cl_icd_dispatch **own) {
    if (!target || !own_entries || !own) return CL_INVALID_ARG_VALUE;
    if (entries > kMaxEntries) return CL_OUT_OF_RESOURCES;
    next_ = target;
    memcpy(&own_, target, entries * sizeof(void *));
    own_.dispatch.clGetDeviceInfo = get_device_info;
    own_.dispatch.clGetDeviceIDs = get_device_ids;
    own_.dispatch.clGetKernelInfo = get_kernel_info;
    own_.dispatch.clBuildProgram = build_program;
    own_.dispatch.clEnqueueNDRangeKernel = enqueue_kernel;
    own_.dispatch.clReleaseProgram = release_program;
    *own = &own_.dispatch;
    *own_entries = entries;
    return CL_SUCCESS;
}

// Khronos' loaders from 2025 on look for these two as well.
CL_API_ENTRY cl_int CL_API_CALL clInitLayerWithProperties(cl_uint entries,
                                                          const struct _cl_icd_dispatch *target,
                                                          cl_uint *own_entries,
                                                          const struct _cl_icd_dispatch **own,
                                                          const void *properties) {
    (void)properties;
    return clInitLayer(entries, target, own_entries, own);
}

CL_API_ENTRY cl_int CL_API_CALL clDeinitLayer(void) {
    return CL_SUCCESS;
}
