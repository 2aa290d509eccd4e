/* What every fuzz target shares: the function that libFuzzer calls, and how a target says that something is wrong. */
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
