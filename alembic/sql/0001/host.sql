-- Subscribes a node to addresses. Returns a position: messages with a greater id are told to the node from now on,
-- and every message that was there before has a lesser id or this one. Ids come in blocks of 512.
-- Returns NULL, and does nothing, where the node is not registered, or not any more.
CREATE FUNCTION {schema}.host(hosting_node uuid, addresses text[]) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM {schema}.lock_addresses(addresses);
    -- Locked, so that whoever removes the node comes later and removes these subscriptions, too.
    PERFORM FROM {schema}.node WHERE id = hosting_node FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF NOT EXISTS (SELECT FROM {schema}.log_state) THEN
        PERFORM {schema}.start_epoch();
    END IF;
    INSERT INTO {schema}.subscription (address, node)
    SELECT DISTINCT address, hosting_node FROM unnest(addresses) AS address
    ON CONFLICT DO NOTHING;
    RETURN (SELECT last_value + 511 FROM {schema}.message_id);
END
$$
