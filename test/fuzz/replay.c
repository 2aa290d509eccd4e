/*
 * The main of a fuzz target without libFuzzer: runs each file named on the command line once, then each again with
 * some bytes changed by a generator of fixed seed, so that a plain compiler still gives a useful test.
 */
#include "test.h"
#include <stdlib.h>
#include <string.h>

#define INPUT_MAX 70000
#define CHANGED_RUNS 2000

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);

static void run_changed(struct suite *s, const uint8_t *input, size_t length)
{
	uint8_t *copy = malloc(length + 1);

	for (int run = 0; run < CHANGED_RUNS && length > 0; run++) {
		memcpy(copy, input, length);
		for (uint32_t changes = 1 + suite_below(s, 6); changes > 0; changes--)
			copy[suite_below(s, (uint32_t)length)] = (uint8_t)suite_random(s);
		LLVMFuzzerTestOneInput(copy, 1 + suite_below(s, (uint32_t)length));
	}
	free(copy);
}

int main(int argc, char **argv)
{
	struct suite s = { .name = argv[0], .random = 12 };
	uint8_t *input = malloc(INPUT_MAX);

	for (int i = 1; i < argc; i++) {
		FILE *f = fopen(argv[i], "rb");
		if (f == NULL) {
			CHECK_CASE(&s, false, argv[i]);
			continue;
		}
		size_t length = fread(input, 1, INPUT_MAX, f);
		fclose(f);
		CHECK_CASE(&s, LLVMFuzzerTestOneInput(input, length) == 0, argv[i]);
		run_changed(&s, input, length);
	}
	free(input);
	return suite_end(&s);
}
