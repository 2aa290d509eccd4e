/*
 * Reading of the control words and adoption of tables; see control.h. The contract with the publisher: it rewrites a
 * slot only after every thread has reported the generation of the other slot. Therefore a thread reports a generation
 * when it uses nothing of the older table any more, and it never reports a generation whose slot it could not verify.
 */
#include "control.h"
#include "clock.h"
#include "peer-blocks.h"
#include "tcp-udp.h"
#include <string.h>

#define SLOT_OF(generation) ((generation) % 2)
#define RETRY_NS SECOND_NS

static void refuse_table(struct worker *w, uint32_t generation)
{
	/* In the same slot the refused table has overwritten the one in use. No route is safer than a wrong one. */
	if (w->routes.slot != NULL && SLOT_OF(w->routes.generation) == SLOT_OF(generation))
		w->routes = (struct route_table){ .generation = w->routes.generation };
	w->retry_at_ns = w->now_ns + RETRY_NS;
	if (w->has_refused && w->refused_generation == generation)
		return;
	w->has_refused = true;
	w->refused_generation = generation;
	count_add(w->block, table_refused, 1);
}

static void adopt_table(struct worker *w)
{
	uint32_t generation = atomic_load_explicit(&w->file->generation, memory_order_acquire);

	/* Generation 0 is the empty table of a new file. It has no slot. */
	if (generation == w->routes.generation && (generation == 0 || w->routes.slot != NULL))
		return;
	/* Verifying takes up to a millisecond, so a refused table is read again once a second, not in every poll. */
	if (w->has_refused && w->refused_generation == generation && w->now_ns < w->retry_at_ns)
		return;
	if (generation == 0)
		w->routes = (struct route_table){ 0 };
	else if (!route_table_open(&w->routes, &w->file->slot[SLOT_OF(generation)], generation)) {
		refuse_table(w, generation);
		return;
	}
	w->has_refused = false;
	peer_blocks_fit(w->counters, &w->routes);
	atomic_store_explicit(&w->block->generation, generation, memory_order_release);
}

static enum gate gate_of(const struct worker *w)
{
	if (atomic_load_explicit(&w->file->fence, memory_order_acquire) != 0)
		return GATE_FENCED;
	if (w->now_ns > atomic_load_explicit(&w->file->forward_until, memory_order_acquire))
		return GATE_ORPHANED;
	return GATE_OPEN;
}

static void read_self(struct worker *w)
{
	const struct routes_file *f = w->file;
	uint32_t mtu = atomic_load_explicit(&f->mtu, memory_order_acquire);
	uint32_t underlay = atomic_load_explicit(&f->underlay_mtu, memory_order_acquire);

	mtu = mtu < IPV4_BYTES_MAX ? mtu : IPV4_BYTES_MAX;
	w->self = (struct self){
		.network = f->network,
		.network_length = f->network_length,
		.subnet = f->subnet,
		.subnet_length = f->subnet_length,
		.public_ip = f->public_ip,
		.flags = f->flags,
		.mtu = mtu,
		.longest_received = underlay > mtu + OUTER_BYTES ? underlay - OUTER_BYTES : mtu,
		.gate = gate_of(w),
	};
}

enum control control_poll(struct worker *w)
{
	if (atomic_load_explicit(&w->file->drain, memory_order_acquire) != 0)
		return CONTROL_STOP;
	w->now_ns = clock_now_ns();
	adopt_table(w);
	read_self(w);
	return w->self.mtu == 0 ? CONTROL_PAUSED : CONTROL_FORWARD;
}

void control_answer(struct worker *w)
{
	uint32_t asked = atomic_load_explicit(&w->file->asked, memory_order_acquire);

	if (atomic_load_explicit(&w->block->answered, memory_order_relaxed) != asked)
		atomic_store_explicit(&w->block->answered, asked, memory_order_release);
}
