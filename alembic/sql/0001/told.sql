-- Returns a message as it stands in a notification, after the address. Sets no search_path: it is parsed when created.
CREATE FUNCTION {schema}.told(id bigint, channel text, payload bytea) RETURNS text
LANGUAGE sql STABLE
RETURN ' ' || id || ' ' || coalesce(channel, '') || ' ' ||
       CASE WHEN octet_length(payload) > 5500 THEN '' ELSE encode(payload, 'base64') END
