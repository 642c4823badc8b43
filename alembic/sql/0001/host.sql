-- Subscribes a node to addresses, and ends its subscriptions to others. Returns the log's identity, and a position:
-- from now on, the node is notified of messages to the added addresses with a greater id; every message that was there
-- before has this id or a lesser one. Ids are taken in blocks of 512.
-- A call that removes something, or that follows one whose outcome is unknown, has a version. It does nothing and
-- returns NULL if it is late, after another call with a greater version; or if it knows a greater version than there
-- is: the node was registered again, and must host everything anew. Also returns NULL if the node is not registered, or
-- no longer is.
-- On demand, the node is notified of the position: once it hears that, it has heard everything sent before.
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
        -- Locked, so that a removal of the node waits and removes these subscriptions, too.
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
