/* The two shared memories as tartand holds them: descriptors and mappings, opened and closed together. */
#ifndef TARTAN_TABLE_H
#define TARTAN_TABLE_H

#include <node_api.h>

#include "../shared/route-slot.h"

struct table {
	int routes_fd;
	int routes_read_only_fd;
	int counters_fd;
	struct routes_file *routes;
	/*
	 * Mapped read-only, because the data process is its only writer. NULL if the memories are of another layout:
	 * then only the head of `routes` with its control words is mapped.
	 */
	const struct counters_file *counters;
	uint32_t reserved_peers; /* so many peer blocks have pages, at least */
};

/* table.c: return 0 or an errno, with the call that failed in `step`; nothing stays open after a failure. */
int table_create(struct table *table, const char *label, const char **step);
/* Takes the descriptors over if it succeeds. */
int table_adopt(struct table *table, int routes_fd, int counters_fd, uint32_t version, const char **step);
/*
 * Reserves pages for what a table with these rows uses: in its slot, and of the peer blocks. Returns 0, or an errno
 * with the call that failed in `step`: ENOSPC and ENOMEM mean that memory is full. Nothing was written then.
 */
int table_reserve(struct table *table, uint32_t generation, const struct table_rows *rows, const char **step);
/* The slot in use, or NULL if the memory does not hold what tartand writes. */
const struct route_slot *table_live_slot(const struct table *table);
/* May be called again, and on a table that was never opened. */
void table_close(struct table *table);
void table_clear(struct table *table);

/* The tag of the JavaScript objects that are tables. */
extern const napi_type_tag table_tag;
/* The open table behind `this`, and the arguments; NULL after an exception. */
struct table *table_of(napi_env env, napi_callback_info info, size_t count, napi_value *argv);

/* table-counters.c: never more than the memory has room for, whatever it says. */
uint32_t table_threads(const struct counters_file *counters);
void table_add_counters(napi_env env, napi_value object);

/* table-rows.c: rows as they come from JavaScript, checked. False after an exception. */
bool table_read_rows(napi_env env, napi_value peers, napi_value routes, struct table_rows *rows);
napi_value table_check(napi_env env, napi_callback_info info);
/* The rows of a slot as an object for JavaScript (NativeRows); NULL after an exception. */
napi_value table_rows_of(napi_env env, const struct route_slot *slot);

/* table-publish.c */
void table_add_publish(napi_env env, napi_value object);

/* table-measurements.c */
void table_add_measurements(napi_env env, napi_value object);

/* table-control.c */
void table_add_control(napi_env env, napi_value object);

#endif
