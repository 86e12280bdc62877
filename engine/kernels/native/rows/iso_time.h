/* Times in ISO 8601, as time_of in engine/records/reference_decoder.py reads them. */
#ifndef ISO_TIME_H
#define ISO_TIME_H

#include <stdint.h>
#include <string.h>

/* `n` digits at *p, which moves behind them; -1 if there are not as many before `end`. */
static inline int32_t digits_at(const char **p, const char *end, int n) {
    int32_t value = 0;
    if (end - *p < n) return -1;
    for (; n > 0; n--, ++*p) {
        if (**p < '0' || **p > '9') return -1;
        value = 10 * value + (**p - '0');
    }
    return value;
}

/* Whether one of the characters of `set` is at *p, which moves behind it. */
static inline int take_one(const char **p, const char *end, const char *set) {
    if (*p == end || **p == 0 || strchr(set, **p) == NULL) return 0;
    ++*p;
    return 1;
}

/* Days since 1970 of a date in the Gregorian calendar, years from 1 on; INT64_MIN if there is no such day. */
static inline int64_t days_of(int32_t year, int32_t month, int32_t day) {
    static const uint8_t lengths[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    static const uint16_t before[12] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    if (year < 1 || month < 1 || month > 12 || day < 1) return INT64_MIN;
    int is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if (day > lengths[month - 1] + (is_leap && month == 2)) return INT64_MIN;
    int64_t past = year - 1;
    return 365 * past + past / 4 - past / 100 + past / 400 + before[month - 1] + (is_leap && month > 2) + day - 719163;
}

/* The text [p, end): 1 with the seconds since 1970, or 0. */
static int read_time(const char *p, const char *end, double *seconds) {
    int32_t year = digits_at(&p, end, 4);
    if (year < 0 || !take_one(&p, end, "-")) return 0;
    int32_t month = digits_at(&p, end, 2);
    if (month < 0 || !take_one(&p, end, "-")) return 0;
    int64_t days = days_of(year, month, digits_at(&p, end, 2)), nanos = 0;
    if (days == INT64_MIN) return 0;
    int64_t whole = days * 86400;
    if (p < end) {
        if (!take_one(&p, end, "Tt ")) return 0;
        int32_t hour = digits_at(&p, end, 2), minute, second = 0;
        if (hour < 0 || hour > 23 || !take_one(&p, end, ":")) return 0;
        minute = digits_at(&p, end, 2);
        if (minute < 0 || minute > 59) return 0;
        if (take_one(&p, end, ":")) {
            second = digits_at(&p, end, 2);
            if (second < 0 || second > 59) return 0;
            if (take_one(&p, end, ".,")) {
                const char *first = p;
                for (int64_t unit = 100000000; p < end && *p >= '0' && *p <= '9'; unit /= 10, p++)
                    nanos += unit * (*p - '0');
                if (p == first) return 0;
            }
        }
        whole += hour * 3600 + minute * 60 + second;
        int is_behind = p < end && *p == '-';
        if (take_one(&p, end, "+-")) {
            hour = digits_at(&p, end, 2);
            if (hour < 0 || hour > 23) return 0;
            (void)take_one(&p, end, ":");
            minute = digits_at(&p, end, 2);
            if (minute < 0 || minute > 59) return 0;
            whole += (is_behind ? 1 : -1) * (hour * 3600 + minute * 60);
        } else (void)take_one(&p, end, "Zz");
    }
    if (p != end) return 0;
    *seconds = (double)whole + (double)nanos / 1e9;
    return 1;
}

#endif
