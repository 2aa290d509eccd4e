/* Reads what the data process reports. Its values are numbers to show, and nothing is decided by them. */
#include "addon.h"
#include "table.h"

static const char *const counter_names[COUNTER_COUNT] = {
#define COUNTER_NAME(name) #name,
	COUNTERS(COUNTER_NAME)
#undef COUNTER_NAME
};

static const char *const feature_names[FEATURE_COUNT] = {
#define FEATURE_NAME(name) #name,
	FEATURES(FEATURE_NAME)
#undef FEATURE_NAME
};

static const char *const refusal_names[REFUSAL_COUNT] = {
#define REFUSAL_NAME(name) #name,
	REFUSALS(REFUSAL_NAME)
#undef REFUSAL_NAME
};

uint32_t table_threads(const struct counters_file *c)
{
	const uint32_t threads = atomic_load(&c->threads);
	return threads < THREADS_MAX ? threads : THREADS_MAX;
}

/* A data process of another build may have fewer counters, or more, which have no name here. */
static double summed(const struct counters_file *c, uint32_t counter)
{
	uint64_t sum = 0;
	for (uint32_t i = 0; counter < c->counter_count && i < table_threads(c); i++)
		sum += atomic_load_explicit(&c->thread[i].counters[counter], memory_order_relaxed);
	return (double)sum;
}

static uint32_t lowest_adopted(const struct counters_file *c)
{
	uint32_t lowest = UINT32_MAX;
	for (uint32_t i = 0; i < table_threads(c); i++) {
		const uint32_t generation = atomic_load(&c->thread[i].generation);
		if (generation < lowest)
			lowest = generation;
	}
	return lowest == UINT32_MAX ? 0 : lowest;
}

/* The names of the bits as an array; NULL after an exception. Unknown bits are ignored. */
static napi_value names_of(napi_env env, uint32_t bits, const char *const *names, uint32_t names_count)
{
	napi_value array, name;
	uint32_t count = 0;

	if (!ok(env, napi_create_array(env, &array)))
		return NULL;
	for (uint32_t i = 0; i < names_count; i++) {
		if ((bits >> i & 1) == 0)
			continue;
		if (!ok(env, napi_create_string_utf8(env, names[i], NAPI_AUTO_LENGTH, &name)) ||
		    !ok(env, napi_set_element(env, array, count++, name)))
			return NULL;
	}
	return array;
}

static napi_value counters_method(napi_env env, napi_callback_info info)
{
	struct table *t = table_of(env, info, 0, NULL);
	napi_value object, counters, features, refused;
	if (!t || !t->counters)
		return NULL;
	object = new_object(env);
	counters = new_object(env);
	features = names_of(env, atomic_load(&t->counters->features), feature_names, FEATURE_COUNT);
	refused = names_of(env, atomic_load(&t->counters->refused), refusal_names, REFUSAL_COUNT);
	if (!object || !counters || !features || !refused)
		return NULL;
	for (uint32_t i = 0; i < COUNTER_COUNT; i++)
		add_number(env, counters, counter_names[i], summed(t->counters, i));
	add_number(env, object, "pid", atomic_load(&t->counters->pid));
	add_number(env, object, "threads", table_threads(t->counters));
	add_number(env, object, "adopted", lowest_adopted(t->counters));
	ok(env, napi_set_named_property(env, object, "counters", counters));
	ok(env, napi_set_named_property(env, object, "features", features));
	ok(env, napi_set_named_property(env, object, "refused", refused));
	const uint32_t denied = atomic_load(&t->counters->denied_call);
	if (denied != 0)
		add_number(env, object, "deniedCall", denied - 1);
	return finished(env, object);
}

static napi_value adopted_method(napi_env env, napi_callback_info info)
{
	struct table *t = table_of(env, info, 0, NULL);
	return t && t->counters ? new_number(env, lowest_adopted(t->counters)) : NULL;
}

static napi_value answers_method(napi_env env, napi_callback_info info)
{
	struct table *t = table_of(env, info, 0, NULL);
	napi_value array;
	if (!t || !t->counters || !ok(env, napi_create_array(env, &array)))
		return NULL;
	for (uint32_t i = 0; i < table_threads(t->counters); i++) {
		napi_value answered = new_number(env, atomic_load(&t->counters->thread[i].answered));
		if (!answered || !ok(env, napi_set_element(env, array, i, answered)))
			return NULL;
	}
	return array;
}

void table_add_counters(napi_env env, napi_value object)
{
	add_function(env, object, "counters", counters_method);
	add_function(env, object, "adopted", adopted_method);
	add_function(env, object, "answers", answers_method);
}
