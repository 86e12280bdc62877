/* One record: what its velocity features are, and then the record enters the histories of its keys. */
#include "velocity.h"
#include "../siphash.h"
#include <math.h>
#include <string.h>

/* ---- keys ---- */

void velocity_keys(const velocity_plan *plan, const int64_t *inputs, velocity_key *keys) {
    for (int32_t at = 0; at < plan->n_key_sets; at++) {
        const velocity_key_set *k = &plan->key_sets[at];
        uint64_t parts[2 * MAX_PARTS + 1];
        int is_missing = 0;
        for (int32_t i = 0; i < k->n_parts; i++) {
            memcpy(parts + 2 * i, inputs + k->parts[i], sizeof(uint64_t[2]));
            is_missing |= (parts[2 * i] | parts[2 * i + 1]) == 0;
        }
        /* The same values in another key set are another key. */
        parts[2 * k->n_parts] = (uint64_t)at;
        if (is_missing) keys[at] = (velocity_key){{0, 0}};
        else siphash128(plan->hash_key, parts, (2 * (size_t)k->n_parts + 1) * sizeof *parts, keys[at].hash);
    }
}

static int is_key(const velocity_key *key) { return (key->hash[0] | key->hash[1]) != 0; }

/* ---- whole numbers of up to 192 bits ---- */

static wide wide_sum(wide a, wide b) {
    unsigned __int128 low = a.low + b.low;
    return (wide){low, a.high + b.high + (low < a.low)};
}

static wide wide_difference(wide a, wide b) { return (wide){a.low - b.low, a.high - b.high - (a.low < b.low)}; }

static wide wide_product(wide a, uint64_t by) {
    unsigned __int128 first = (unsigned __int128)(uint64_t)a.low * by;
    unsigned __int128 second = (unsigned __int128)(uint64_t)(a.low >> 64) * by + (uint64_t)(first >> 64);
    return (wide){second << 64 | (uint64_t)first, a.high * by + (uint64_t)(second >> 64)};
}

/* Of a number below 2**96. */
static wide wide_square(unsigned __int128 a) {
    uint64_t low = (uint64_t)a, high = (uint64_t)(a >> 64);
    wide twice = wide_product((wide){(unsigned __int128)low, 0}, high);
    twice = wide_sum(twice, twice);
    wide square = {(unsigned __int128)low * low, high * high};
    return wide_sum(square, (wide){twice.low << 64, (uint64_t)(twice.low >> 64)});
}

/* The nearest float64, ties to even.

   Not by the compiler's conversion of __int128: that is a call into Zig's runtime library, which is linked as a whole
   and defines `exp`, too. Scores would come from it, and differ from the training library's in the last bit. */
static double wide_double(wide a) {
    uint64_t words[3] = {(uint64_t)a.low, (uint64_t)(a.low >> 64), a.high};
    int top = words[2] != 0 ? 2 : words[1] != 0 ? 1 : 0;
    if (top == 0) return (double)words[0];
    int zeros = __builtin_clzll(words[top]);
    uint64_t kept = words[top] << zeros | (zeros != 0 ? words[top - 1] >> (64 - zeros) : 0);
    uint64_t lost = words[top - 1] << zeros | (top == 2 ? words[0] : 0);
    return ldexp((double)(kept | (lost != 0)), 64 * top - zeros);
}

static double whole_double(__int128 a) {
    double size = wide_double((wide){(unsigned __int128)(a < 0 ? -a : a), 0});
    return a < 0 ? -size : size;
}

/* ---- entries ---- */

static int64_t hop_of(const int64_t *entry) { return (int64_t)(uint32_t)entry[0]; }
static int64_t count_of(const int64_t *entry) { return (int64_t)((uint64_t)entry[0] >> 32); }

/* {how many, upper 32 bits of the sum}, {lower 64 bits} */
static __int128 sum_of(const int64_t *words) {
    return (__int128)(words[0] >> 32) * ((__int128)1 << 64) + (uint64_t)words[1];
}

static void add_value(int64_t *entry, const velocity_column *c, int64_t value) {
    int64_t *words = entry + c->word;
    if (c->needs & NEEDS_SUM) {
        __int128 sum = sum_of(words) + value;
        uint32_t n = (uint32_t)words[0] + 1;
        words[0] = (int64_t)((uint64_t)(int64_t)(sum >> 64) << 32 | n);
        words[1] = (int64_t)(uint64_t)sum;
        words += 2;
    }
    if (c->needs & NEEDS_SQUARES) {
        unsigned __int128 square = (unsigned __int128)((__int128)value * value), low;
        memcpy(&low, words, sizeof low);
        low += square;
        words[2] += low < square;
        memcpy(words, &low, sizeof low);
        words += 3;
    }
    if (c->needs & NEEDS_EXTREMES) {
        if (value < words[0]) words[0] = value;
        if (value > words[1]) words[1] = value;
    }
}

static void blank_entry(int64_t *entry, const velocity_group *g, int64_t hop) {
    memset(entry, 0, (size_t)g->stride * sizeof *entry);
    entry[0] = hop;
    for (int32_t i = 0; i < g->n_columns; i++) {
        const velocity_column *c = &g->columns[i];
        if (!(c->needs & NEEDS_EXTREMES)) continue;
        int64_t *words = entry + c->word + extremes_at(c->needs);
        words[0] = INT64_MAX;
        words[1] = INT64_MIN;
    }
}

/* The value of a column in units of its scale; 0 if it is missing. */
static int value_of(const int64_t *inputs, int32_t word, double power, int64_t *value) {
    double read;
    memcpy(&read, inputs + word, sizeof read);
    double scaled = rint(read * power);
    if (!(fabs(scaled) <= LARGEST_VALUE)) return 0;
    *value = (int64_t)scaled;
    return 1;
}

/* ---- distinct values: the hop is known by 6 bits, since all that are kept lie in one window ---- */

static uint64_t identity_bits(const int64_t *inputs, int32_t word) {
    if ((inputs[word] | inputs[word + 1]) == 0) return 0; /* missing */
    uint64_t bits = (uint64_t)inputs[word] & ~(uint64_t)63;
    return bits != 0 ? bits : 64;
}

static int64_t distinct_hop(int64_t word, int64_t newest) { return newest - (int64_t)((uint64_t)(newest - word) & 63); }

/* ---- the functions ---- */

/* Counts and sums over the hops `after` < hop <= `until`. Returns how many records. */
static int64_t sum_up(const velocity_group *g, const int64_t *entry, int32_t n, int64_t after, int64_t until,
                      velocity_sums *sums) {
    int64_t count = 0;
    for (int32_t i = 0; i < g->n_columns; i++) sums[i] = (velocity_sums){.smallest = INT64_MAX, .largest = INT64_MIN};
    for (; n > 0; n--, entry += g->stride) {
        int64_t hop = hop_of(entry);
        if (hop <= after || hop > until) continue;
        count += count_of(entry);
        for (int32_t i = 0; i < g->n_columns; i++) {
            const velocity_column *c = &g->columns[i];
            const int64_t *words = entry + c->word;
            if (c->needs & NEEDS_SUM) {
                sums[i].n += (uint32_t)words[0];
                sums[i].sum += sum_of(words);
                words += 2;
            }
            if (c->needs & NEEDS_SQUARES) {
                wide squares = {0, (uint64_t)words[2]};
                memcpy(&squares.low, words, sizeof squares.low);
                sums[i].squares = wide_sum(sums[i].squares, squares);
                words += 3;
            }
            if (c->needs & NEEDS_EXTREMES) {
                if (words[0] < sums[i].smallest) sums[i].smallest = words[0];
                if (words[1] > sums[i].largest) sums[i].largest = words[1];
            }
        }
    }
    return count;
}

/* ---- few records ---- */

static int is_few(const int64_t *block) { return (block[IDENTITY] & FEW) != 0; }
static uint16_t *lengths_of(const velocity_key_set *k, int64_t *block) { return (uint16_t *)(block + k->lengths_word); }
static int32_t list_length(const velocity_key_set *k, const int64_t *block, int32_t list) {
    return ((const uint16_t *)(block + k->lengths_word))[list];
}

/* As sum_up, of the records with from <= time < until. */
static int64_t sum_up_few(const velocity_key_set *k, const velocity_group *g, const int64_t *block, int64_t from,
                          int64_t until, velocity_sums *sums) {
    int64_t count = 0;
    const int64_t *record = block + k->lists_word;
    for (int32_t i = 0; i < g->n_columns; i++) sums[i] = (velocity_sums){.smallest = INT64_MAX, .largest = INT64_MIN};
    for (int32_t n = list_length(k, block, 0); n > 0; n--, record += k->few_words) {
        if (record[0] < from || record[0] >= until) continue;
        count++;
        for (int32_t i = 0; i < g->n_columns; i++) {
            const velocity_column *c = &g->columns[i];
            int64_t value;
            if (!value_of(record, c->few, c->power, &value)) continue;
            sums[i].n++;
            sums[i].sum += value;
            if (c->needs & NEEDS_SQUARES)
                sums[i].squares = wide_sum(sums[i].squares, (wide){(unsigned __int128)((__int128)value * value), 0});
            if (value < sums[i].smallest) sums[i].smallest = value;
            if (value > sums[i].largest) sums[i].largest = value;
        }
    }
    return count;
}

static int64_t count_distinct_few(const velocity_key_set *k, const int64_t *block, int32_t word, int64_t from) {
    const int64_t *records = block + k->lists_word;
    int64_t count = 0;
    for (int32_t i = 0; i < list_length(k, block, 0); i++) {
        const int64_t *record = records + (size_t)i * (size_t)k->few_words;
        int is_new = record[word] != 0 && record[0] >= from;
        for (int32_t j = 0; is_new && j < i; j++) {
            const int64_t *earlier = records + (size_t)j * (size_t)k->few_words;
            is_new = earlier[word] != record[word] || earlier[0] < from;
        }
        count += is_new;
    }
    return count;
}

/* The sample's standard deviation, in units of the scale; NaN for fewer than two values. */
static double deviation(const velocity_sums *s) {
    if (s->n < 2) return NAN;
    unsigned __int128 size = (unsigned __int128)(s->sum < 0 ? -s->sum : s->sum);
    wide numerator = wide_difference(wide_product(s->squares, (uint64_t)s->n), wide_square(size));
    return sqrt(wide_double(numerator) / whole_double((__int128)s->n * (s->n - 1)));
}

/* A function of the sums of its value; own: whether the record has one itself, which is `value`. */
static double of_sums(const velocity_output *o, const velocity_sums *s, int own, int64_t value) {
    switch (o->function) {
    case SUM: return whole_double(s->sum) / o->power;
    case MEAN: return s->n == 0 ? NAN : whole_double(s->sum) / whole_double((__int128)s->n * (int64_t)o->power);
    case STD: return deviation(s) / o->power;
    case MIN: return s->smallest == INT64_MAX ? NAN : (double)s->smallest / o->power;
    case MAX: return s->largest == INT64_MIN ? NAN : (double)s->largest / o->power;
    case RATIO_TO_MEAN:
        return !own || s->n == 0 || s->sum == 0 ? NAN : whole_double((__int128)value * s->n) / whole_double(s->sum);
    default: {
        double s_d = deviation(s);
        if (!own || !(s_d > 0)) return NAN;
        return whole_double((__int128)value * s->n - s->sum) / (double)s->n / s_d;
    }
    }
}

/* All that a key set gives; block NULL: nothing is known of the key. */
static void read_features(const velocity_plan *plan, velocity_state *s, int32_t at, const int64_t *block,
                          const int64_t *inputs, int64_t time, float *row) {
    const velocity_key_set *k = &plan->key_sets[at];
    const int64_t *list = block == NULL ? NULL : block + k->lists_word;
    int32_t of_group = -1;
    int64_t count = 0, hop = 0, newest = 0;
    const int64_t *distinct = NULL; /* the first list of its distinct values */
    for (int32_t i = k->first_output; i < k->first_output + k->n_outputs; i++) {
        const velocity_output *o = &plan->outputs[i];
        const velocity_group *g = &k->groups[o->group];
        while (of_group < o->group) { /* groups come in order */
            const velocity_group *next = &k->groups[++of_group];
            hop = newest = time / next->hop_ms;
            count = 0;
            int32_t n = 0;
            if (block != NULL) {
                if (block[NEWEST_TIME] > time) newest = block[NEWEST_TIME] / next->hop_ms;
                n = list_length(k, block, next->first_list);
            }
            if (block != NULL && is_few(block)) {
                count =
                    sum_up_few(k, next, block, (newest - HOPS + 1) * next->hop_ms, (hop + 1) * next->hop_ms, s->sums);
                continue;
            }
            count = sum_up(next, list, n, newest - HOPS, hop, s->sums);
            if (block == NULL) continue;
            distinct = list + (size_t)n * (size_t)next->stride;
            list = distinct;
            for (int32_t j = 0; j < next->n_distinct; j++) list += list_length(k, block, next->first_list + 1 + j);
        }
        double result = NAN;
        int64_t value = 0;
        int own = 0;
        switch (o->function) {
        case COUNT: result = (double)count; break;
        case DISTINCT: {
            int64_t n = 0;
            if (block != NULL && is_few(block)) {
                n = count_distinct_few(k, block, g->distinct_few[o->item], (newest - HOPS + 1) * g->hop_ms);
            } else if (block != NULL) {
                const int64_t *values = distinct;
                for (int32_t j = 0; j < o->item; j++) values += list_length(k, block, g->first_list + 1 + j);
                int64_t known = block[NEWEST_TIME] / g->hop_ms;
                for (int32_t j = 0; j < list_length(k, block, g->first_list + 1 + o->item); j++)
                    n += distinct_hop(values[j], known) > newest - HOPS;
            }
            result = (double)n;
            break;
        }
        case LAST:
        case SECONDS_SINCE_LAST: {
            if (block == NULL) break;
            const int64_t *last = o->function == LAST ? block + LAST_VALUES + 2 * o->item : NULL;
            int64_t then = last != NULL ? last[1] : block[LAST_TIME];
            int64_t at_hop = then / g->hop_ms;
            if (then < 0 || at_hop <= newest - HOPS || at_hop > hop) break;
            result = last != NULL ? (double)last[0] / o->power : (double)(time - then) / 1000.0;
            break;
        }
        default:
            if (o->function >= RATIO_TO_MEAN) own = value_of(inputs, o->input, o->power, &value);
            result = of_sums(o, &s->sums[o->item], own, value);
        }
        row[o->column] = (float)result;
    }
}

/* ---- the record enters the history ---- */

/* The values of a distinct list with one more, in `out`; returns how many. */
static int32_t with_value(const int64_t *values, int32_t n, int64_t known, int64_t newest, uint64_t bits, int64_t hop,
                          int64_t *out) {
    int32_t kept = 0, same = -1, oldest = -1;
    for (int32_t i = 0; i < n; i++) {
        int64_t of = distinct_hop(values[i], known);
        if (of <= newest - HOPS) continue;
        if (((uint64_t)values[i] & ~(uint64_t)63) == bits) same = kept;
        out[kept++] = values[i];
    }
    if (bits == 0 || hop <= newest - HOPS) return kept;
    int64_t word = (int64_t)(bits | ((uint64_t)hop & 63));
    if (same >= 0) {
        if (distinct_hop(out[same], known) < hop) out[same] = word;
        return kept;
    }
    if (kept < MOST_DISTINCT) {
        out[kept++] = word;
        return kept;
    }
    for (int32_t i = 0; i < kept; i++)
        if (oldest < 0 || distinct_hop(out[i], known) < distinct_hop(out[oldest], known)) oldest = i;
    if (distinct_hop(out[oldest], known) < hop) out[oldest] = word;
    return kept;
}

static void add_record(const velocity_group *g, const int64_t *inputs, int64_t *entry) {
    entry[0] += (int64_t)1 << 32;
    for (int32_t i = 0; i < g->n_columns; i++) {
        int64_t value;
        if (value_of(inputs, g->columns[i].input, g->columns[i].power, &value)) add_value(entry, &g->columns[i], value);
    }
}

/* The word of a value in its list, NULL if it is not there. */
static int64_t *find_value(int64_t *values, int32_t n, uint64_t bits) {
    for (int32_t i = 0; i < n; i++)
        if (((uint64_t)values[i] & ~(uint64_t)63) == bits) return values + i;
    return NULL;
}

/* Where nothing but entries that are there changes, which is usual for a key of many records. Returns 0, with nothing
   done, if it is not so. */
static int enter_in_place(const velocity_key_set *k, int64_t *block, const int64_t *inputs, int64_t time) {
    for (int pass = 0; pass < 2; pass++) { /* may it be done, do it */
        int64_t *list = block + k->lists_word;
        for (int32_t i = 0; i < k->n_groups; i++) {
            const velocity_group *g = &k->groups[i];
            int64_t hop = time / g->hop_ms;
            int32_t n = list_length(k, block, g->first_list);
            int64_t *newest = list + (size_t)(n - 1) * (size_t)g->stride;
            if (n == 0 || hop_of(newest) != hop || block[NEWEST_TIME] / g->hop_ms != hop) return 0;
            if (pass == 1) add_record(g, inputs, newest);
            list += (size_t)n * (size_t)g->stride;
            for (int32_t j = 0; j < g->n_distinct; j++) {
                uint64_t bits = identity_bits(inputs, g->distinct[j]);
                int32_t n_values = list_length(k, block, g->first_list + 1 + j);
                int64_t *value = bits == 0 ? NULL : find_value(list, n_values, bits);
                if (bits != 0 && value == NULL) return 0;
                if (pass == 1 && value != NULL) *value = (int64_t)(bits | ((uint64_t)hop & 63));
                list += n_values;
            }
        }
    }
    return 1;
}

/* Of a key without records. */
static void blank_head(const velocity_key_set *k, const velocity_key *key, int64_t *out) {
    memset(out, 0, (size_t)k->lists_word * sizeof *out);
    memcpy(out, key->hash, sizeof key->hash);
    out[NEWEST_TIME] = -1;
    for (int32_t i = 0; i < k->n_last; i++) out[LAST_VALUES + 2 * i + 1] = -1;
}

/* The block of the key with the record, in `out`; block NULL: it is the first. Returns its words. */
static size_t with_record(const velocity_key_set *k, const int64_t *block, const velocity_key *key,
                          const int64_t *inputs, int64_t time, int64_t *out) {
    if (block != NULL) memcpy(out, block, (size_t)k->lists_word * sizeof *out);
    else blank_head(k, key, out);
    uint16_t *lengths = (uint16_t *)(out + k->lengths_word);
    const int64_t *from = block == NULL ? out : block + k->lists_word;
    int64_t *to = out + k->lists_word;
    int64_t known_ms = out[NEWEST_TIME], newest_ms = time > known_ms ? time : known_ms;
    for (int32_t i = 0; i < k->n_groups; i++) {
        const velocity_group *g = &k->groups[i];
        size_t stride = (size_t)g->stride;
        int64_t hop = time / g->hop_ms, newest = newest_ms / g->hop_ms, known = known_ms / g->hop_ms;
        int32_t n = lengths[g->first_list], kept = 0;
        int is_in = hop <= newest - HOPS; /* too late: it enters no hop */
        for (int32_t j = 0; j < n; j++, from += stride) {
            if (hop_of(from) <= newest - HOPS) continue;
            if (!is_in && hop_of(from) > hop) {
                blank_entry(to, g, hop);
                add_record(g, inputs, to);
                to += stride;
                kept++;
                is_in = 1;
            }
            memcpy(to, from, stride * sizeof *to);
            if (!is_in && hop_of(from) == hop) {
                add_record(g, inputs, to);
                is_in = 1;
            }
            to += stride;
            kept++;
        }
        if (!is_in) {
            blank_entry(to, g, hop);
            add_record(g, inputs, to);
            to += stride;
            kept++;
        }
        lengths[g->first_list] = (uint16_t)kept;
        for (int32_t j = 0; j < g->n_distinct; j++) {
            int32_t had = lengths[g->first_list + 1 + j];
            int32_t has = with_value(from, had, known, newest, identity_bits(inputs, g->distinct[j]), hop, to);
            lengths[g->first_list + 1 + j] = (uint16_t)has;
            from += had;
            to += has;
        }
    }
    return (size_t)(to - out);
}

static void note_last(const velocity_key_set *k, const int64_t *inputs, int64_t time, int64_t *block) {
    if (time > block[NEWEST_TIME]) block[NEWEST_TIME] = time;
    block[LAST_TIME] = time;
    for (int32_t i = 0; i < k->n_last; i++) {
        int64_t value;
        if (!value_of(inputs, k->last[i].input, k->last[i].power, &value)) continue;
        block[LAST_VALUES + 2 * i] = value;
        block[LAST_VALUES + 2 * i + 1] = time;
    }
}

static void pack(const velocity_key_set *k, const int64_t *inputs, int64_t time, int64_t *record) {
    record[0] = time;
    for (int32_t i = 1; i < k->few_words; i++) {
        int32_t input = k->few_inputs[i - 1];
        record[i] = i <= k->n_few_values ? inputs[input] : (int64_t)identity_bits(inputs, input);
    }
}

static void unpack(const velocity_key_set *k, const int64_t *record, int64_t *inputs) {
    for (int32_t i = 1; i < k->few_words; i++) {
        int32_t input = k->few_inputs[i - 1];
        inputs[input] = record[i];
        if (i > k->n_few_values) inputs[input + 1] = record[i] != 0;
    }
}

/* Drops the records that no window has any more; returns how many are left. */
static int32_t prune(const velocity_key_set *k, int64_t *block) {
    int64_t *to = block + k->lists_word, *from = to;
    int32_t n = list_length(k, block, 0), kept = 0;
    for (int32_t i = 0; i < n; i++, from += k->few_words) {
        int is_in = 0;
        for (int32_t j = 0; j < k->n_groups && !is_in; j++) {
            int64_t hop_ms = k->groups[j].hop_ms;
            is_in = from[0] >= (block[NEWEST_TIME] / hop_ms - HOPS + 1) * hop_ms;
        }
        if (!is_in) continue;
        memmove(to, from, (size_t)k->few_words * sizeof *to);
        to += k->few_words;
        kept++;
    }
    lengths_of(k, block)[0] = (uint16_t)kept;
    return kept;
}

/* The block of few records with hops, in s->rebuilt. */
static void sort_into_hops(velocity_state *s, const velocity_key_set *k, const velocity_key *key,
                           const int64_t *block) {
    int64_t *hops = NULL, *next = s->other;
    const int64_t *record = block + k->lists_word;
    for (int32_t n = list_length(k, block, 0); n > 0; n--, record += k->few_words) {
        unpack(k, record, s->inputs);
        with_record(k, hops, key, s->inputs, record[0], next);
        if (record[0] > next[NEWEST_TIME]) next[NEWEST_TIME] = record[0];
        hops = next;
        next = next == s->other ? s->rebuilt : s->other;
    }
    size_t head = (size_t)(k->lengths_word - NEWEST_TIME) * sizeof *block;
    memcpy(hops + NEWEST_TIME, block + NEWEST_TIME, head);
    if (hops == s->other) memcpy(s->rebuilt, s->other, s->plan->largest_block * sizeof *hops);
}

/* A record of a key that has few. Returns 0, -1 without memory, 1 if there are too many: the key has hops in s->rebuilt
   then, without this record. */
static int enter_few(velocity_state *s, int32_t at, uint32_t number, const velocity_key *key, const int64_t *inputs,
                     int64_t time) {
    const velocity_key_set *k = &s->plan->key_sets[at];
    int64_t *block = number == 0 ? NULL : velocity_block(s, number);
    int32_t n = block == NULL ? 0 : list_length(k, block, 0);
    if (n == k->most_few) n = prune(k, block);
    if (n == k->most_few) {
        sort_into_hops(s, k, key, block);
        return 1;
    }
    size_t has = (size_t)k->lists_word + (size_t)n * (size_t)k->few_words, words = has + (size_t)k->few_words;
    int stays = block != NULL && velocity_room(block) >= words;
    int64_t *to = stays ? block : s->rebuilt;
    if (block == NULL) blank_head(k, key, to);
    else if (!stays) memcpy(to, block, has * sizeof *to);
    pack(k, inputs, time, to + has);
    lengths_of(k, to)[0] = (uint16_t)(n + 1);
    note_last(k, inputs, time, to);
    if (stays) {
        velocity_touch(s, number);
        return 0;
    }
    to[IDENTITY] = (int64_t)at << 8 | FEW;
    return velocity_store(s, number, to, words) != 0 ? 0 : -1;
}

static int enter(velocity_state *s, int32_t at, uint32_t number, const velocity_key *key, const int64_t *inputs,
                 int64_t time) {
    const velocity_key_set *k = &s->plan->key_sets[at];
    int64_t *block = number == 0 ? NULL : velocity_block(s, number);
    if (number != 0) velocity_snapshot_keep(s, number);
    s->serial++;
    if (block == NULL || is_few(block)) {
        int result = enter_few(s, at, number, key, inputs, time);
        if (result <= 0) return result;
        memcpy(s->other, s->rebuilt, s->plan->largest_block * sizeof *block);
        block = s->other;
    } else if (enter_in_place(k, block, inputs, time)) {
        note_last(k, inputs, time, block);
        velocity_touch(s, number);
        return 0;
    }
    size_t n = with_record(k, block, key, inputs, time, s->rebuilt);
    note_last(k, inputs, time, s->rebuilt);
    s->rebuilt[IDENTITY] = (int64_t)at << 8;
    return velocity_store(s, number, s->rebuilt, n) != 0 ? 0 : -1;
}

int velocity_apply(const velocity_plan *plan, velocity_state *s, const int64_t *inputs, const velocity_key *keys,
                   int64_t timestamp_ms, float *row) {
    int64_t time = plan->has_time ? inputs[0] : timestamp_ms;
    if (time < 0 || time >= LATEST_MS || (timestamp_ms >= 0 && time > timestamp_ms + AHEAD_MS)) {
        s->without_time++;
        for (int32_t i = 0; i < plan->n_outputs; i++) row[plan->outputs[i].column] = NAN;
        return 0;
    }
    s->incomplete += time - plan->longest_ms < s->complete_from_ms;
    int result = 0;
    for (int32_t at = 0; at < plan->n_key_sets; at++) {
        const velocity_key_set *k = &plan->key_sets[at];
        if (!is_key(&keys[at])) {
            for (int32_t i = 0; i < k->n_outputs; i++) row[plan->outputs[k->first_output + i].column] = NAN;
            continue;
        }
        uint32_t number = velocity_find(s, &keys[at]);
        read_features(plan, s, at, number == 0 ? NULL : velocity_block(s, number), inputs, time, row);
        if (enter(s, at, number, &keys[at], inputs, time) != 0) result = -1;
    }
    velocity_keep_limit(s, timestamp_ms >= 0 ? timestamp_ms : time);
    return result;
}
