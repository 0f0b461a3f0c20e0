/* The LRU queue of the ZeroMQ guide: REQ clients in front, REQ workers behind; a request goes to the
 * worker that has been idle longest, and clients are read only while a worker is idle.
 * Usage: lruqueue FRONT BACK, two endpoints such as tcp://127.0.0.1:5555. Built by isdbench. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#define WORKERS_MAX 100000
#define ID_MAX 255

typedef struct { size_t size; char bytes[ID_MAX]; } address_t;

static address_t idle[WORKERS_MAX];
static size_t first, count;

static void fail(const char *what)
{
    fprintf(stderr, "lruqueue: %s: %s\n", what, zmq_strerror(zmq_errno()));
    exit(1);
}

static int receive(void *socket, zmq_msg_t *part)
{
    zmq_msg_init(part);
    if (zmq_msg_recv(part, socket, 0) < 0)
        fail("receive");
    return zmq_msg_more(part);
}

static void pass_on(void *to, zmq_msg_t *part, int more)
{
    if (zmq_msg_send(part, to, more ? ZMQ_SNDMORE : 0) < 0)
        fail("send");
}

static void pass_rest(void *from, void *to)
{
    zmq_msg_t part;
    int more;
    do {
        more = receive(from, &part);
        pass_on(to, &part, more);
    } while (more);
}

static void drop(void *from)
{
    zmq_msg_t part;
    receive(from, &part);
    zmq_msg_close(&part);
}

static void *open_router(void *context, const char *endpoint)
{
    int limit = 0, backlog = 1024;
    void *socket = zmq_socket(context, ZMQ_ROUTER);
    zmq_setsockopt(socket, ZMQ_SNDHWM, &limit, sizeof limit);
    zmq_setsockopt(socket, ZMQ_RCVHWM, &limit, sizeof limit);
    zmq_setsockopt(socket, ZMQ_BACKLOG, &backlog, sizeof backlog);
    if (zmq_bind(socket, endpoint) < 0)
        fail(endpoint);
    return socket;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    void *context = zmq_ctx_new();
    zmq_ctx_set(context, ZMQ_MAX_SOCKETS, 65535);
    void *front = open_router(context, argv[1]);
    void *back = open_router(context, argv[2]);
    for (;;) {
        zmq_pollitem_t items[] = { { back, 0, ZMQ_POLLIN, 0 }, { front, 0, ZMQ_POLLIN, 0 } };
        zmq_msg_t part;
        if (zmq_poll(items, count > 0 ? 2 : 1, -1) < 0)
            fail("poll");
        if (items[0].revents & ZMQ_POLLIN) {
            receive(back, &part);
            if (count == WORKERS_MAX || zmq_msg_size(&part) > ID_MAX)
                return 1;
            address_t *worker = &idle[(first + count++) % WORKERS_MAX];
            worker->size = zmq_msg_size(&part);
            memcpy(worker->bytes, zmq_msg_data(&part), worker->size);
            zmq_msg_close(&part);
            drop(back);
            /* READY alone, or the address of a client, an empty frame and the reply. */
            if (receive(back, &part)) {
                pass_on(front, &part, 1);
                pass_rest(back, front);
            } else {
                zmq_msg_close(&part);
            }
        }
        if (count > 0 && (items[1].revents & ZMQ_POLLIN)) {
            address_t *worker = &idle[first];
            first = (first + 1) % WORKERS_MAX;
            count--;
            if (zmq_send(back, worker->bytes, worker->size, ZMQ_SNDMORE) < 0
                || zmq_send(back, "", 0, ZMQ_SNDMORE) < 0)
                fail("send");
            pass_rest(front, back);
        }
    }
}
