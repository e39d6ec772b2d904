/* The driver's error codes: names and numbers as published, texts in our own words. */
#ifndef GPUSIM_CUDA_ERRORS_H
#define GPUSIM_CUDA_ERRORS_H

/* GPUSIM_ERRORS(X) calls X(name after CUDA_, number, text) for each. */
#define GPUSIM_ERRORS(X)                                                                           \
    X(SUCCESS, 0, "no error")                                                                      \
    X(ERROR_INVALID_VALUE, 1, "invalid argument")                                                  \
    X(ERROR_OUT_OF_MEMORY, 2, "out of memory")                                                     \
    X(ERROR_NOT_INITIALIZED, 3, "initialization error")                                            \
    X(ERROR_DEINITIALIZED, 4, "driver shutting down")                                              \
    X(ERROR_STUB_LIBRARY, 34, "stub library")                                                      \
    X(ERROR_DEVICE_UNAVAILABLE, 46, "devices are busy or unavailable")                             \
    X(ERROR_NO_DEVICE, 100, "no CUDA-capable device is detected")                                  \
    X(ERROR_INVALID_DEVICE, 101, "invalid device ordinal")                                         \
    X(ERROR_INVALID_IMAGE, 200, "device kernel image is invalid")                                  \
    X(ERROR_INVALID_CONTEXT, 201, "invalid device context")                                        \
    X(ERROR_MAP_FAILED, 205, "mapping of buffer object failed")                                    \
    X(ERROR_UNMAP_FAILED, 206, "unmapping of buffer object failed")                                \
    X(ERROR_ALREADY_MAPPED, 208, "resource already mapped")                                        \
    X(ERROR_NO_BINARY_FOR_GPU, 209, "no kernel image is available for this device")                \
    X(ERROR_NOT_MAPPED, 211, "resource not mapped")                                                \
    X(ERROR_ECC_UNCORRECTABLE, 214, "uncorrectable ECC error")                                     \
    X(ERROR_PEER_ACCESS_UNSUPPORTED, 217, "peer access is not supported")                          \
    X(ERROR_INVALID_PTX, 218, "PTX compilation failed")                                            \
    X(ERROR_NVLINK_UNCORRECTABLE, 220, "uncorrectable NVLink error")                               \
    X(ERROR_UNSUPPORTED_PTX_VERSION, 222, "PTX of an unsupported version")                         \
    X(ERROR_CONTAINED, 226, "contained hardware error")                                            \
    X(ERROR_INVALID_SOURCE, 300, "device kernel image is invalid")                                 \
    X(ERROR_FILE_NOT_FOUND, 301, "file not found")                                                 \
    X(ERROR_OPERATING_SYSTEM, 304, "OS call failed")                                               \
    X(ERROR_INVALID_HANDLE, 400, "invalid resource handle")                                        \
    X(ERROR_ILLEGAL_STATE, 401, "resource is not in a valid state")                                \
    X(ERROR_NOT_FOUND, 500, "named symbol not found")                                              \
    X(ERROR_NOT_READY, 600, "device not ready")                                                    \
    X(ERROR_ILLEGAL_ADDRESS, 700, "an illegal memory access was encountered")                      \
    X(ERROR_LAUNCH_OUT_OF_RESOURCES, 701, "too many resources requested for launch")               \
    X(ERROR_LAUNCH_TIMEOUT, 702, "the launch timed out and was terminated")                        \
    X(ERROR_PRIMARY_CONTEXT_ACTIVE, 708, "the primary context is active")                          \
    X(ERROR_CONTEXT_IS_DESTROYED, 709, "context is destroyed")                                     \
    X(ERROR_ASSERT, 710, "device-side assert triggered")                                           \
    X(ERROR_HOST_MEMORY_ALREADY_REGISTERED, 712, "host memory is registered already")              \
    X(ERROR_HOST_MEMORY_NOT_REGISTERED, 713, "host memory is not registered")                      \
    X(ERROR_HARDWARE_STACK_ERROR, 714, "hardware stack error")                                     \
    X(ERROR_ILLEGAL_INSTRUCTION, 715, "an illegal instruction was encountered")                    \
    X(ERROR_MISALIGNED_ADDRESS, 716, "misaligned address")                                         \
    X(ERROR_INVALID_ADDRESS_SPACE, 717, "operation not supported on this address space")           \
    X(ERROR_INVALID_PC, 718, "invalid program counter")                                            \
    X(ERROR_LAUNCH_FAILED, 719, "unspecified launch failure")                                      \
    X(ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, 720, "too many blocks in cooperative launch")            \
    X(ERROR_NOT_PERMITTED, 800, "operation not permitted")                                         \
    X(ERROR_NOT_SUPPORTED, 801, "operation not supported")                                         \
    X(ERROR_SYSTEM_NOT_READY, 802, "system not yet initialized")                                   \
    X(ERROR_SYSTEM_DRIVER_MISMATCH, 803, "driver components do not match")                         \
    X(ERROR_MPS_CONNECTION_FAILED, 805, "connection to the MPS control daemon failed")             \
    X(ERROR_MPS_RPC_FAILURE, 806, "remote call to the MPS server failed")                          \
    X(ERROR_MPS_SERVER_NOT_READY, 807, "the MPS server is not ready for new clients")              \
    X(ERROR_MPS_MAX_CLIENTS_REACHED, 808, "the MPS server has no room for more clients")           \
    X(ERROR_MPS_MAX_CONNECTIONS_REACHED, 809, "no more device connections for MPS clients")        \
    X(ERROR_MPS_CLIENT_TERMINATED, 810, "the MPS client was terminated by the MPS server")         \
    X(ERROR_STREAM_CAPTURE_UNSUPPORTED, 900, "operation not permitted when stream is capturing")   \
    X(ERROR_STREAM_CAPTURE_INVALIDATED, 901,                                                       \
      "operation failed due to a previous error during capture")                                   \
    X(ERROR_EXTERNAL_DEVICE, 911, "an error of a device outside CUDA")                             \
    X(ERROR_UNKNOWN, 999, "unknown error")

#endif
