/* See strangers.h. */
#include "strangers.h"
#include "clock.h"
#include <pthread.h>

/* Held by the thread that changes whose a place is. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct stranger *find(struct counters_file *c, uint32_t address)
{
	for (size_t i = 0; i < STRANGERS_MAX; i++)
		if (atomic_load_explicit(&c->stranger[i].address, memory_order_relaxed) == address)
			return &c->stranger[i];
	return NULL;
}

static struct stranger *oldest(struct counters_file *c)
{
	struct stranger *found = &c->stranger[0];

	for (size_t i = 1; i < STRANGERS_MAX; i++)
		if (atomic_load_explicit(&c->stranger[i].last_ns, memory_order_relaxed) <
		    atomic_load_explicit(&found->last_ns, memory_order_relaxed))
			found = &c->stranger[i];
	return found;
}

static void see(struct stranger *s, uint64_t now_ns)
{
	atomic_fetch_add_explicit(&s->packets, 1, memory_order_relaxed);
	if (atomic_load_explicit(&s->last_ns, memory_order_relaxed) / MILLISECOND_NS != now_ns / MILLISECOND_NS)
		atomic_store_explicit(&s->last_ns, now_ns, memory_order_relaxed);
}

void strangers_note(struct counters_file *c, uint32_t address, uint64_t now_ns)
{
	struct stranger *s = find(c, address);

	if (s == NULL) {
		/* Another thread is at it: this datagram is not noted. */
		if (pthread_mutex_trylock(&lock) != 0)
			return;
		s = find(c, address);
		if (s == NULL) {
			s = oldest(c);
			atomic_store_explicit(&s->address, 0, memory_order_relaxed);
			atomic_store_explicit(&s->packets, 0, memory_order_relaxed);
			atomic_store_explicit(&s->last_ns, now_ns, memory_order_relaxed);
			atomic_store_explicit(&s->address, address, memory_order_release);
		}
		pthread_mutex_unlock(&lock);
	}
	see(s, now_ns);
}
