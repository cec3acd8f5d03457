// SPDX-License-Identifier: Apache-2.0
/**
 * As much of a CUDA driver as cuDNN asks for to finalise a plan whose kernel it compiles itself:
 * code is "loaded", and whatever would need a device fails.
 */
#include <stddef.h>

enum { CUDA_SUCCESS = 0, CUDA_ERROR_NO_DEVICE = 100 };

static char token; /* every library, module and kernel */

#define FAILS(name) extern int name(void) __attribute__((alias("fails")))
#define LOADS(name) extern int name(void **out) __attribute__((alias("loads")))
#define WORKS(name) extern int name(void) __attribute__((alias("works")))
#define TELLS(name) extern int name(int *value) __attribute__((alias("tells")))

static int __attribute__((used)) fails(void)
{
    return CUDA_ERROR_NO_DEVICE;
}

static int __attribute__((used)) loads(void **out)
{
    *out = &token;
    return CUDA_SUCCESS;
}

static int __attribute__((used)) works(void)
{
    return CUDA_SUCCESS;
}

static int __attribute__((used)) tells(int *value)
{
    *value = 1;
    return CUDA_SUCCESS;
}

LOADS(cuLibraryLoadData);
LOADS(cuLibraryGetKernel);
LOADS(cuModuleLoadData);
LOADS(cuModuleLoadDataEx);
LOADS(cuModuleLoadFatBinary);
LOADS(cuModuleGetFunction);
WORKS(cuLibraryUnload);
WORKS(cuModuleUnload);
WORKS(cuKernelSetAttribute);
WORKS(cuFuncSetAttribute);
TELLS(cuKernelGetAttribute);
TELLS(cuFuncGetAttribute);
TELLS(cuOccupancyMaxActiveBlocksPerMultiprocessor);
TELLS(cuOccupancyMaxPotentialClusterSize);
FAILS(cuInit);
FAILS(cuDriverGetVersion);
FAILS(cuGetErrorName);
FAILS(cuGetErrorString);
FAILS(cuGetExportTable);
FAILS(cuGetProcAddress);
FAILS(cuGetProcAddress_v2);
FAILS(cuDeviceGet);
FAILS(cuDeviceGetCount);
FAILS(cuDeviceGetAttribute);
FAILS(cuDevicePrimaryCtxRetain);
FAILS(cuDevicePrimaryCtxRelease);
FAILS(cuDevicePrimaryCtxReset);
FAILS(cuCtxGetCurrent);
FAILS(cuCtxGetDevice);
FAILS(cuCtxGetLimit);
FAILS(cuCtxPushCurrent);
FAILS(cuCtxPopCurrent);
FAILS(cuLaunchKernel);
FAILS(cuLaunchKernelEx);
FAILS(cuLaunchCooperativeKernel);
FAILS(cuLibraryLoadFromFile);
FAILS(cuLinkCreate);
FAILS(cuLinkCreate_v2);
FAILS(cuLinkAddData);
FAILS(cuLinkAddData_v2);
FAILS(cuLinkAddFile_v2);
FAILS(cuLinkComplete);
FAILS(cuLinkDestroy);
FAILS(cuMemcpyDtoH_v2);
FAILS(cuModuleGetGlobal_v2);
FAILS(cuStreamGetCtx);
FAILS(cuStreamSynchronize);
FAILS(cuTensorMapEncodeTiled);
