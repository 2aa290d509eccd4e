/* Publishes tables, reads back the live one, and tells which peer blocks are of nobody. */
#include "addon.h"
#include "table.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

/*
 * Whether no thread reads the slot that is not live any more. A thread that has not begun yet reports 0 and also delays
 * a second publication, because it may be about to open the table that was live when it read the generation.
 */
static bool slot_is_free(const struct table *t)
{
	const uint32_t live = atomic_load(&t->routes->generation);
	for (uint32_t i = 0; i < table_threads(t->counters); i++) {
		if (atomic_load_explicit(&t->counters->thread[i].generation, memory_order_acquire) != live)
			return false;
	}
	return true;
}

static napi_value publish_method(napi_env env, napi_callback_info info)
{
	struct table_rows rows;
	const char *step;
	char subject[48];
	napi_value argv[2];
	struct table *t = table_of(env, info, 2, argv);

	if (!t || !table_read_rows(env, argv[0], argv[1], &rows))
		return NULL;
	if (!t->counters || !slot_is_free(t))
		return new_number(env, 0);
	const uint32_t next = atomic_load(&t->routes->generation) + 1;
	const int err = table_reserve(t, next, &rows, &step);
	if (err) {
		snprintf(subject, sizeof subject, "a table of %u peers", rows.peer_count);
		return throw_errno(env, err, step, subject);
	}
	route_slot_pack(&t->routes->slot[next % 2], next, &rows);
	atomic_store_explicit(&t->routes->generation, next, memory_order_release);
	return new_number(env, next);
}

static napi_value rows_method(napi_env env, napi_callback_info info)
{
	struct table *t = table_of(env, info, 0, NULL);
	const struct route_slot *slot = t ? table_live_slot(t) : NULL;
	return slot ? table_rows_of(env, slot) : NULL;
}

/* The block is read by a call: where no page is reserved, the mapping would take one. */
static napi_value is_block_zeroed_method(napi_env env, napi_callback_info info)
{
	uint32_t identity[4], number;
	napi_value argv[1], result;
	struct table *t = table_of(env, info, 1, argv);

	if (!t || !read_u32(env, argv[0], "the peer number", &number))
		return NULL;
	if (number >= PEERS_MAX)
		return throw_type(env, "the peer number", "below 65536");
	if (!t->counters)
		return ok(env, napi_get_boolean(env, false, &result)) ? result : NULL;
	const off_t at = (off_t)(offsetof(struct counters_file, peer) + number * sizeof(struct peer_block));
	const ssize_t bytes = pread(t->counters_fd, identity, sizeof identity, at);
	if (bytes < 0)
		return throw_errno(env, errno, "pread", "counters");
	const bool is_zeroed = bytes == (ssize_t)sizeof identity && peer_is_free(identity);
	return ok(env, napi_get_boolean(env, is_zeroed, &result)) ? result : NULL;
}

void table_add_publish(napi_env env, napi_value object)
{
	add_function(env, object, "publish", publish_method);
	add_function(env, object, "rows", rows_method);
	add_function(env, object, "isBlockZeroed", is_block_zeroed_method);
}
