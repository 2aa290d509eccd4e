/*
 * The main function of a fuzz target without libFuzzer. `TARGET FILE...` runs each file once, and then many times with
 * some bytes changed by a generator with a fixed seed, so that a compiler without libFuzzer gives a useful test too.
 * The last line says how many runs there were.
 */
#include "target.h"
#include "test.h"
#include <string.h>

#define INPUT_MAX 70000
#define CHANGED_RUNS 2000

static unsigned long run_changed(struct suite *s, const uint8_t *input, size_t length)
{
	uint8_t *copy = malloc(length + 1);
	unsigned long run = 0;

	for (; run < CHANGED_RUNS && length > 0; run++) {
		memcpy(copy, input, length);
		for (uint32_t changes = 1 + suite_below(s, 6); changes > 0; changes--)
			copy[suite_below(s, (uint32_t)length)] = (uint8_t)suite_random(s);
		LLVMFuzzerTestOneInput(copy, 1 + suite_below(s, (uint32_t)length));
	}
	free(copy);
	return run;
}

int main(int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/');
	struct suite s = { .random = 12 };
	uint8_t *input = malloc(INPUT_MAX);
	unsigned long runs = 0;

	for (int i = 1; i < argc; i++) {
		FILE *f = fopen(argv[i], "rb");
		if (f == NULL) {
			perror(argv[i]);
			return 1;
		}
		size_t length = fread(input, 1, INPUT_MAX, f);
		fclose(f);
		LLVMFuzzerTestOneInput(input, length);
		runs += 1 + run_changed(&s, input, length);
	}
	free(input);
	printf("fuzz %s: %lu runs in replay, no finding\n", slash == NULL ? argv[0] : slash + 1, runs);
	return runs == 0;
}
