/* What the broker can do when the client costs next to nothing: librabbitmq, one connection, one channel.
 *
 *   ceiling URL QUEUE publish_async|work_async COUNT WINDOW PREFETCH BODY_SIZE
 *
 * Prints one line of JSON. publish_async: COUNT persistent messages, at most WINDOW of them unconfirmed.
 * work_async: takes COUNT messages, each acked by itself; the clock runs from the first to the last.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <amqp.h>
#include <amqp_tcp_socket.h>

enum { CHANNEL = 1, FRAME_SIZE = 131072 };

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void give_up(const char *what) {
    fprintf(stderr, "ceiling: %s failed\n", what);
    exit(1);
}

static void expect(amqp_rpc_reply_t reply, const char *what) {
    if (reply.reply_type != AMQP_RESPONSE_NORMAL) give_up(what);
}

static amqp_connection_state_t open_channel(char *url) {
    struct amqp_connection_info info;
    if (amqp_parse_url(url, &info) != AMQP_STATUS_OK) give_up("reading the URL");
    amqp_connection_state_t connection = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(connection);
    if (socket == NULL || amqp_socket_open(socket, info.host, info.port) != AMQP_STATUS_OK) give_up("connecting");
    const char *vhost = info.vhost[0] == '\0' ? "/" : info.vhost; /* what a URL that ends in a slash means here */
    expect(amqp_login(connection, vhost, 0, FRAME_SIZE, 0, AMQP_SASL_METHOD_PLAIN, info.user, info.password),
           "logging in");
    amqp_channel_open(connection, CHANNEL);
    expect(amqp_get_rpc_reply(connection), "opening a channel");
    return connection;
}

static void declare(amqp_connection_state_t connection, const char *queue) {
    amqp_table_entry_t type = {.key = amqp_cstring_bytes("x-queue-type"),
                               .value = {.kind = AMQP_FIELD_KIND_UTF8,
                                         .value = {.bytes = amqp_cstring_bytes("quorum")}}};
    amqp_table_t arguments = {.num_entries = 1, .entries = &type};
    amqp_queue_declare(connection, CHANNEL, amqp_cstring_bytes(queue), 0, 1, 0, 0, arguments);
    expect(amqp_get_rpc_reply(connection), "declaring the queue");
}

/* Waits for the broker's next word on confirms and returns the highest tag it names. */
static uint64_t next_confirm(amqp_connection_state_t connection) {
    amqp_frame_t frame;
    do {
        if (amqp_simple_wait_frame(connection, &frame) != AMQP_STATUS_OK) give_up("waiting for a confirm");
        if (frame.frame_type == AMQP_FRAME_METHOD && frame.payload.method.id == AMQP_BASIC_NACK_METHOD)
            give_up("a publish");
    } while (frame.frame_type != AMQP_FRAME_METHOD || frame.payload.method.id != AMQP_BASIC_ACK_METHOD);
    uint64_t tag = ((amqp_basic_ack_t *)frame.payload.method.decoded)->delivery_tag;
    amqp_maybe_release_buffers(connection);
    return tag;
}

static double publish(amqp_connection_state_t connection, const char *queue, uint64_t count, uint64_t window,
                      size_t size) {
    amqp_confirm_select(connection, CHANNEL);
    expect(amqp_get_rpc_reply(connection), "turning confirms on");
    amqp_bytes_t body = amqp_bytes_malloc(size);
    memset(body.bytes, 'x', size);
    amqp_basic_properties_t properties = {
        ._flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_MESSAGE_ID_FLAG,
        .delivery_mode = 2,
        .content_type = amqp_cstring_bytes("application/json"),
        .message_id = amqp_cstring_bytes("019a0000-0000-7000-8000-000000000000")};
    uint64_t sent = 0, confirmed = 0;
    double start = seconds();
    while (confirmed < count) {
        for (; sent < count && sent - confirmed < window; sent++)
            if (amqp_basic_publish(connection, CHANNEL, amqp_empty_bytes, amqp_cstring_bytes(queue), 0, 0, &properties,
                                   body) != AMQP_STATUS_OK)
                give_up("publishing");
        do {
            uint64_t tag = next_confirm(connection);
            if (tag > confirmed) confirmed = tag;
        } while (sent < count && (amqp_frames_enqueued(connection) || amqp_data_in_buffer(connection)));
    }
    double rate = (double)count / (seconds() - start);
    amqp_bytes_free(body);
    return rate;
}

static double work(amqp_connection_state_t connection, const char *queue, uint64_t count, uint16_t prefetch) {
    amqp_basic_qos(connection, CHANNEL, 0, prefetch, 0);
    expect(amqp_get_rpc_reply(connection), "setting the prefetch");
    amqp_basic_consume(connection, CHANNEL, amqp_cstring_bytes(queue), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    expect(amqp_get_rpc_reply(connection), "consuming");
    double first = 0;
    for (uint64_t done = 0; done < count; done++) {
        amqp_envelope_t envelope;
        amqp_maybe_release_buffers(connection);
        expect(amqp_consume_message(connection, &envelope, NULL, 0), "taking a message");
        if (amqp_basic_ack(connection, CHANNEL, envelope.delivery_tag, 0) != AMQP_STATUS_OK) give_up("acking");
        amqp_destroy_envelope(&envelope);
        if (done == 0) first = seconds();
    }
    return (double)(count - 1) / (seconds() - first);
}

int main(int argc, char **argv) {
    if (argc != 8) give_up("reading the command line");
    const char *queue = argv[2];
    uint64_t count = strtoull(argv[4], NULL, 10);
    amqp_connection_state_t connection = open_channel(argv[1]);
    declare(connection, queue);
    double rate = strcmp(argv[3], "work_async") == 0
                      ? work(connection, queue, count, (uint16_t)atoi(argv[6]))
                      : publish(connection, queue, count, strtoull(argv[5], NULL, 10), strtoull(argv[7], NULL, 10));
    printf("{\"rate\": %.1f}\n", rate);
    expect(amqp_channel_close(connection, CHANNEL, AMQP_REPLY_SUCCESS), "closing the channel");
    expect(amqp_connection_close(connection, AMQP_REPLY_SUCCESS), "closing");
    amqp_destroy_connection(connection);
    return 0;
}
