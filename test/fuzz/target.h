/* Shared by all fuzz targets: the function that libFuzzer calls, and a check that ends the process. */
#ifndef TARTAN_TARGET_H
#define TARTAN_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);

static inline void require(bool holds)
{
	if (!holds)
		abort();
}

#endif
