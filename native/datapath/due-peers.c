/* See due-peers.h. */
#include "due-peers.h"

static void swap(struct due_peer *a, struct due_peer *b)
{
	const struct due_peer was = *a;

	*a = *b;
	*b = was;
}

void due_peers_add(struct due_peers *d, uint32_t peer, uint64_t at_ns)
{
	size_t i = d->count++;

	d->entry[i] = (struct due_peer){ .at_ns = at_ns, .peer = peer };
	for (; i > 0 && d->entry[(i - 1) / 2].at_ns > d->entry[i].at_ns; i = (i - 1) / 2)
		swap(&d->entry[(i - 1) / 2], &d->entry[i]);
}

static void sift_first(struct due_peers *d)
{
	for (size_t i = 0, child; (child = 2 * i + 1) < d->count; i = child) {
		if (child + 1 < d->count && d->entry[child + 1].at_ns < d->entry[child].at_ns)
			child++;
		if (d->entry[i].at_ns <= d->entry[child].at_ns)
			return;
		swap(&d->entry[i], &d->entry[child]);
	}
}

void due_peers_delay_first(struct due_peers *d, uint64_t at_ns)
{
	d->entry[0].at_ns = at_ns;
	sift_first(d);
}

void due_peers_remove_first(struct due_peers *d)
{
	d->entry[0] = d->entry[--d->count];
	sift_first(d);
}
