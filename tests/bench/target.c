/* The bench's target: an HTTP/1.1 server in one thread on epoll, with kept connections.
 *
 *   /<size>        answers so many bytes: 0, 1k, 64k, 1m, 50m …
 *   ?ms=<n>        answers so many milliseconds later
 *   ?id=<text>     the answer's text begins with this, so that a swapped answer is noticed
 *   POST           the answer is "<id> <bytes> <FNV-1a of the body, 16 hex digits>"
 *   /count         how many requests were answered and how many connections accepted so far, without this one
 *
 * It listens on as many ports as the first argument says, one host each for a client, and prints them on one line.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEAD 16384
#define PATTERN (1 << 20)
#define MOST 65536

struct conn {
    int fd, listening, have, in_body, is_post, waits_write;
    char head[HEAD];
    char id[128];
    long long need, got, size, sent, ms;
    uint64_t sum;
    char out[512];
    int out_have, out_sent, body_from_out;
    double due;
    int place; /* in the heap of delayed answers, -1 if in none */
};

static char pattern[PATTERN];
static struct conn *heap[MOST];
static int heap_size, ep;
static long long count, connections;
static struct conn listeners[2048];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void heap_set(int i, struct conn *c) { heap[i] = c; c->place = i; }

static void heap_up(int i) {
    while (i > 0 && heap[i]->due < heap[(i - 1) / 2]->due) {
        struct conn *c = heap[i];
        heap_set(i, heap[(i - 1) / 2]);
        heap_set((i - 1) / 2, c);
        i = (i - 1) / 2;
    }
}

static void heap_down(int i) {
    for (;;) {
        int least = i, l = 2 * i + 1, r = 2 * i + 2;
        if (l < heap_size && heap[l]->due < heap[least]->due) least = l;
        if (r < heap_size && heap[r]->due < heap[least]->due) least = r;
        if (least == i) return;
        struct conn *c = heap[i];
        heap_set(i, heap[least]);
        heap_set(least, c);
        i = least;
    }
}

static void heap_remove(struct conn *c) {
    int i = c->place;
    if (i < 0) return;
    c->place = -1;
    struct conn *last = heap[--heap_size];
    if (last != c) {
        heap_set(i, last);
        heap_up(i);
        heap_down(last->place);
    }
}

static void drop(struct conn *c) {
    heap_remove(c);
    close(c->fd);
    free(c);
}

static void watch(struct conn *c, int write) {
    if (c->waits_write == write) return;
    c->waits_write = write;
    struct epoll_event e = {.events = write ? EPOLLOUT : EPOLLIN, .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
}

/* Sends what is left; returns 0 when the connection is over. */
static int flush_out(struct conn *c) {
    while (c->out_sent < c->out_have) {
        ssize_t n = send(c->fd, c->out + c->out_sent, c->out_have - c->out_sent, MSG_NOSIGNAL | (c->sent < c->size ? MSG_MORE : 0));
        if (n < 0) {
            if (errno != EAGAIN) return 0;
            watch(c, 1);
            return 1;
        }
        c->out_sent += n;
    }
    while (c->sent < c->size) {
        long long at = c->sent % PATTERN, left = c->size - c->sent, piece = PATTERN - at;
        ssize_t n = send(c->fd, pattern + at, left < piece ? left : piece, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN) return 0;
            watch(c, 1);
            return 1;
        }
        c->sent += n;
    }
    watch(c, 0);
    return 1;
}

static int answer(struct conn *c) {
    char body[256];
    int have = 0;
    if (c->is_post)
        have = snprintf(body, sizeof body, "%s %lld %016llx", c->id, c->got, (unsigned long long)c->sum);
    else if (c->size < 0)
        have = snprintf(body, sizeof body, "%lld %lld", --count, --connections);
    else
        have = snprintf(body, sizeof body, "%s", c->id);
    long long size = c->is_post || c->size < have ? have : c->size;
    c->out_have = snprintf(c->out, sizeof c->out,
                           "HTTP/1.1 200 OK\r\nServer: target\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %lld\r\n\r\n%.*s",
                           size, have, body);
    c->out_sent = 0;
    c->size = size;
    c->sent = have;
    return flush_out(c);
}

static int finished(struct conn *c) {
    count++;
    c->in_body = 0;
    if (c->ms <= 0) return answer(c);
    c->due = now() + c->ms / 1000.0;
    heap_set(heap_size, c);
    heap_size++;
    heap_up(heap_size - 1);
    return 1;
}

static void query(const char *text, const char *end, const char *name, char *into, int most) {
    int length = strlen(name), have = 0;
    for (const char *p = text; p + length < end; p++)
        if ((p[-1] == '?' || p[-1] == '&') && !strncmp(p, name, length)) {
            for (p += length; p < end && *p != '&' && *p != ' ' && have < most - 1; p++) into[have++] = *p;
            break;
        }
    into[have] = 0;
}

/* Reads a head; returns its length, 0 if it is not whole yet. */
static int parse(struct conn *c) {
    char *end = memmem(c->head, c->have, "\r\n\r\n", 4);
    if (!end) return 0;
    *end = 0;
    char *line = memmem(c->head, end - c->head, "\r\n", 2), *path = strchr(c->head, ' ');
    if (!line) line = end;
    char number[32];
    query(path, line, "id=", c->id, sizeof c->id);
    query(path, line, "ms=", number, sizeof number);
    c->ms = atoll(number);
    char *unit;
    c->size = strtoll(path + 2, &unit, 10);
    if (*unit == 'k') c->size *= 1000;
    if (*unit == 'm') c->size *= 1000000;
    if (!strncmp(path + 1, "/count", 6)) c->size = -1;
    c->need = c->got = 0;
    c->sum = 14695981039346656037ull;
    c->is_post = !strncmp(c->head, "POST", 4);
    for (char *h = line; h && h < end; h = strstr(h + 2, "\r\n")) {
        if (!strncasecmp(h + 2, "content-length:", 15)) c->need = atoll(h + 17);
        if (!strncasecmp(h + 2, "expect:", 7) && send(c->fd, "HTTP/1.1 100 Continue\r\n\r\n", 25, MSG_NOSIGNAL) < 0) c->need = 0;
    }
    return end + 4 - c->head;
}

static void take(struct conn *c, const char *data, long long length) {
    for (long long i = 0; i < length; i++) c->sum = (c->sum ^ (unsigned char)data[i]) * 1099511628211ull;
    c->got += length;
}

static int readable(struct conn *c) {
    static char buffer[1 << 18];
    for (;;) {
        if (c->in_body) {
            long long left = c->need - c->got;
            ssize_t n = recv(c->fd, buffer, left < (long long)sizeof buffer ? left : (long long)sizeof buffer, 0);
            if (n == 0) return 0;
            if (n < 0) return errno == EAGAIN;
            take(c, buffer, n);
            if (c->got == c->need) return finished(c);
            continue;
        }
        ssize_t n = recv(c->fd, c->head + c->have, HEAD - c->have, 0);
        if (n == 0) return 0;
        if (n < 0) return errno == EAGAIN;
        c->have += n;
        int length = parse(c);
        if (!length) {
            if (c->have == HEAD) return 0;
            continue;
        }
        long long rest = c->have - length;
        if (rest > c->need) rest = c->need; /* No client of the bench pipelines. */
        take(c, c->head + length, rest);
        c->have = 0;
        if (c->got == c->need) return finished(c);
        c->in_body = 1;
    }
}

static void accept_all(struct conn *l) {
    for (;;) {
        int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK), one = 1;
        if (fd < 0) return;
        connections++;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct conn *c = calloc(1, sizeof *c);
        c->fd = fd;
        c->place = -1;
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
    }
}

int main(int argc, char **argv) {
    int ports = argc > 1 ? atoi(argv[1]) : 1;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    uint64_t seed = 88172645463325252ull;
    for (int i = 0; i < PATTERN; i++) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        pattern[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[seed & 63];
    }
    ep = epoll_create1(0);
    for (int i = 0; i < ports && i < 2048; i++) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t size = sizeof a;
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 1024)) return perror("listen"), 1;
        getsockname(fd, (struct sockaddr *)&a, &size);
        printf("%s%d", i ? " " : "", ntohs(a.sin_port));
        listeners[i].fd = fd;
        listeners[i].listening = 1;
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = &listeners[i]};
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
    }
    printf("\n");
    fflush(stdout);
    struct epoll_event events[256];
    for (;;) {
        double wait = heap_size ? heap[0]->due - now() : -1;
        int n = epoll_wait(ep, events, 256, heap_size ? (wait > 0 ? (int)(wait * 1000) + 1 : 0) : -1);
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (c->listening) accept_all(c);
            else if (!(events[i].events & EPOLLOUT ? flush_out(c) : readable(c))) drop(c);
        }
        double t = now();
        while (heap_size && heap[0]->due <= t) {
            struct conn *c = heap[0];
            heap_remove(c);
            if (!answer(c)) drop(c);
        }
    }
}
