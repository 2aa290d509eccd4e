/* Layout of the packet memory; see buffers.h. */
#include "buffers.h"
#include <errno.h>
#include <sys/mman.h>

/*
 * The distance of two datagrams: the longest datagram and five cache lines. With a power of two as distance the headers
 * of all datagrams of a poll would fall into the same few cache sets.
 */
#define STRIDE (65536u + 320u)
#define DATAGRAMS_BYTES ((size_t)RX_BUDGET * STRIDE)
/* As much as fits a second-level cache: three of the longest packets, and the segments cut from four. */
#define PACKETS_BYTES ((size_t)3 * STRIDE)
#define SEGMENTS_BYTES ((size_t)4 * STRIDE + 8192)
#define ARENAS_BYTES (DATAGRAMS_BYTES + PACKETS_BYTES + SEGMENTS_BYTES)

int buffers_open(struct buffers *buffers)
{
	const size_t bytes = ARENAS_BYTES + (size_t)2 * STRIDE;
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return errno;
	buffers->memory = memory;
	return 0;
}

uint8_t *buffers_datagram(const struct buffers *buffers, size_t i)
{
	return buffers->memory + i * STRIDE;
}

struct arena buffers_packets(const struct buffers *buffers)
{
	return (struct arena){ .bytes = buffers->memory + DATAGRAMS_BYTES, .room = PACKETS_BYTES };
}

struct arena buffers_segments(const struct buffers *buffers)
{
	return (struct arena){ .bytes = buffers->memory + DATAGRAMS_BYTES + PACKETS_BYTES, .room = SEGMENTS_BYTES };
}

uint8_t *buffers_whole(const struct buffers *buffers)
{
	return buffers->memory + ARENAS_BYTES;
}

uint8_t *buffers_fragment(const struct buffers *buffers)
{
	return buffers->memory + ARENAS_BYTES + STRIDE;
}
