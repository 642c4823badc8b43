-- Subscribes a node to addresses, and ends its subscriptions to others. Returns the log's identity, and a position:
-- messages to the added addresses with a greater id are told to the node from now on, and every message that was there
-- before has a lesser id or this one. Ids come in blocks of 512.
-- A call that removes something, or that follows one whose outcome is unknown, has a version: one that comes late, when
-- another with a greater version was here, does nothing, and neither does one that knows a greater version than there is:
-- the node was registered again, and must host everything anew. Returns NULL then, and where the node is not registered, or not any more.
-- On demand the node is notified of the position: when it hears that, it has heard all that was sent before.
CREATE FUNCTION {schema}.host(
    hosting_node uuid, known_version bigint, next_version bigint, added text[], removed text[], is_marked boolean,
    OUT identity bigint, OUT "position" bigint
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM {schema}.lock_addresses(added || removed);
    IF next_version IS NULL THEN
        -- Locked, so that whoever removes the node comes later and removes these subscriptions, too.
        PERFORM FROM {schema}.node WHERE id = hosting_node FOR KEY SHARE;
    ELSE
        UPDATE {schema}.node SET version = next_version
        WHERE id = hosting_node AND version >= known_version AND version < next_version;
    END IF;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO {schema}.subscription (address, node)
    SELECT DISTINCT address, hosting_node FROM unnest(added) AS address
    ON CONFLICT (address, node) DO NOTHING;
    DELETE FROM {schema}.subscription AS s USING unnest(removed) AS gone (address)
    WHERE s.address = gone.address AND s.node = hosting_node;
    SELECT e.identity, e.last_id INTO identity, "position" FROM {schema}.extent() AS e;
    IF is_marked THEN
        PERFORM pg_notify(hosting_node::text, 'h ' || "position");
    END IF;
END
$$
